/* See elf.h. Patching the GOT works for objects that are already bound, also with full RELRO, and
 * reaches RTLD_LOCAL objects, which LD_PRELOAD does not. */
#include "injector/elf.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__aarch64__)
enum { JUMP_SLOT = R_AARCH64_JUMP_SLOT, GLOB_DAT = R_AARCH64_GLOB_DAT };
#else
enum { JUMP_SLOT = R_X86_64_JUMP_SLOT, GLOB_DAT = R_X86_64_GLOB_DAT };
#endif

struct search {
    const char *name;
    char *path;
    size_t path_bytes;
    struct dl_phdr_info info;
    bool found;
};

static int match(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct search *s = arg;
    const char *base = strrchr(info->dlpi_name, '/');

    (void)size;
    base = base ? base + 1 : info->dlpi_name;
    if (strncmp(base, s->name, strlen(s->name)) != 0)
        return 0;
    snprintf(s->path, s->path_bytes, "%s", info->dlpi_name);
    s->info = *info;
    s->found = true;
    return 1;
}

void *inj_elf_mapped_path(const char *name, char *path, size_t path_bytes)
{
    struct search s = {.name = name, .path = path, .path_bytes = path_bytes};

    dl_iterate_phdr(match, &s);
    return s.found ? dlopen(path, RTLD_NOW | RTLD_NOLOAD | RTLD_LOCAL) : NULL;
}

void *inj_elf_mapped(const char *name)
{
    char path[1024];

    return inj_elf_mapped_path(name, path, sizeof path);
}

const char *inj_elf_bind(void *lib, const struct inj_symbol *symbol, size_t n, void *functions)
{
    for (size_t i = 0; i < n; i++) {
        void *f = dlsym(lib, symbol[i].name);

        if (!f && symbol[i].needed)
            return symbol[i].name;
        if (f)
            memcpy((char *)functions + symbol[i].offset, &f, sizeof f);
    }
    return NULL;
}

struct dynamic {
    const ElfW(Sym) *sym;
    const char *str;
    const ElfW(Rela) *rela[2]; /* PLT, then the rest */
    size_t n_rela[2];
};

static void read_dynamic(const struct dl_phdr_info *info, struct dynamic *d)
{
    memset(d, 0, sizeof *d);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Dyn) *dyn;

        if (info->dlpi_phdr[i].p_type != PT_DYNAMIC)
            continue;
        dyn = (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
        for (; dyn->d_tag != DT_NULL; dyn++) {
            switch (dyn->d_tag) {
            case DT_SYMTAB:
                d->sym = (const ElfW(Sym) *)dyn->d_un.d_ptr;
                break;
            case DT_STRTAB:
                d->str = (const char *)dyn->d_un.d_ptr;
                break;
            case DT_JMPREL:
                d->rela[0] = (const ElfW(Rela) *)dyn->d_un.d_ptr;
                break;
            case DT_PLTRELSZ:
                d->n_rela[0] = dyn->d_un.d_val / sizeof(ElfW(Rela));
                break;
            case DT_RELA:
                d->rela[1] = (const ElfW(Rela) *)dyn->d_un.d_ptr;
                break;
            case DT_RELASZ:
                d->n_rela[1] = dyn->d_un.d_val / sizeof(ElfW(Rela));
                break;
            default:
                break;
            }
        }
    }
}

/* One slot: the page is writable for the moment of the store, and as it was afterwards (RELRO). */
static bool redirect(void **slot, void *to)
{
    long page = sysconf(_SC_PAGESIZE);
    void *start = (void *)((uintptr_t)slot & ~((uintptr_t)page - 1));

    if (*slot == to)
        return false;
    if (mprotect(start, (size_t)page, PROT_READ | PROT_WRITE))
        return false;
    __atomic_store_n(slot, to, __ATOMIC_RELEASE);
    return true; /* left writable: another thread may be resolving in the same page */
}

static int patch_table(const struct search *s, const struct dynamic *d, int table,
                       const struct inj_patch *patch, size_t n)
{
    int done = 0;

    for (size_t i = 0; i < d->n_rela[table]; i++) {
        const ElfW(Rela) *r = &d->rela[table][i];
        unsigned type = (unsigned)ELF64_R_TYPE(r->r_info);
        const char *name = d->str + d->sym[ELF64_R_SYM(r->r_info)].st_name;

        if (type != JUMP_SLOT && type != GLOB_DAT)
            continue;
        for (size_t k = 0; k < n; k++)
            if (strcmp(name, patch[k].symbol) == 0)
                done += redirect((void **)(s->info.dlpi_addr + r->r_offset), patch[k].replacement);
    }
    return done;
}

int inj_elf_patch(const char *name, const struct inj_patch *patch, size_t n)
{
    char path[1024];
    struct search s = {.name = name, .path = path, .path_bytes = sizeof path};
    struct dynamic d;

    dl_iterate_phdr(match, &s);
    if (!s.found)
        return MP_EGONE;
    read_dynamic(&s.info, &d);
    if (!d.sym || !d.str)
        return MP_EFORMAT;
    return patch_table(&s, &d, 0, patch, n) + patch_table(&s, &d, 1, patch, n);
}
