# html.mk: the maker of synthetic profiles for tests of renderers. Included by the top Makefile.
$(B)/gen_profile: $(B)/tests/html/gen_profile.o $(call obj,$(core_src) $(report_src))
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ $(TOOL_LIBS) -lm -ldl -pthread
unit: $(B)/gen_profile
