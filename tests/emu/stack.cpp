/* stack.cpp: see stack.h. A stack begins by setcontext. From then on switches are jumps, since swapcontext makes two system
 * calls, and the compiler's own: on every jump of libc's the address sanitizer clears what it knows of a stack. */
#include "tests/emu/stack.h"

enum { STACK_BYTES = 256 << 10 };

static void *scheduler_at[5];
static emu_stack *current;

/* The sanitizer is told which stack comes next, and that it has come. It must know of no frames on one that begins: those that
 * ran there before never returned. No stack is given to detect_stack_use_after_return (emu.mk). */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

static const void *scheduler_stack;
static size_t scheduler_bytes;

static void leave_for(const emu_stack &s) { __sanitizer_start_switch_fiber(NULL, s.memory.get(), STACK_BYTES); }
static void leave_for_scheduler(void) { __sanitizer_start_switch_fiber(NULL, scheduler_stack, scheduler_bytes); }
static void arrive(void) { __sanitizer_finish_switch_fiber(NULL, NULL, NULL); }
static void arrive_from_scheduler(void) { __sanitizer_finish_switch_fiber(NULL, &scheduler_stack, &scheduler_bytes); }
static void forget_frames(const emu_stack &s) { __asan_unpoison_memory_region(s.memory.get(), STACK_BYTES); }
#else
static void leave_for(const emu_stack &) {}
static void leave_for_scheduler(void) {}
static void arrive(void) {}
static void arrive_from_scheduler(void) {}
static void forget_frames(const emu_stack &) {}
#endif

/* Calls that do not return, of which the compiler would tell the sanitizer; no function may jump to where it was itself. */
#define JUMPS __attribute__((noinline, no_sanitize_address))

JUMPS static void jump(void **at)
{
    __builtin_longjmp(at, 1);
}

JUMPS static void begin(emu_stack &s)
{
    s.begun = true;
    setcontext(&s.begin);
}

static void enter(void)
{
    arrive_from_scheduler();
    current->run();
}

void emu_stack_start(emu_stack &s, void (*run)(void))
{
    if (!s.memory)
        s.memory.reset(new char[STACK_BYTES]);
    forget_frames(s);
    s.run = run;
    s.begun = false;
    getcontext(&s.begin);
    s.begin.uc_stack.ss_sp = s.memory.get();
    s.begin.uc_stack.ss_size = STACK_BYTES;
    makecontext(&s.begin, enter, 0);
}

JUMPS void emu_switch_to(emu_stack &s)
{
    if (__builtin_setjmp(scheduler_at)) {
        arrive();
        return;
    }
    current = &s;
    leave_for(s);
    if (s.begun)
        jump(s.at);
    begin(s);
}

JUMPS void emu_switch_back(emu_stack &s)
{
    if (!__builtin_setjmp(s.at)) {
        leave_for_scheduler();
        jump(scheduler_at);
    }
    arrive_from_scheduler();
}
