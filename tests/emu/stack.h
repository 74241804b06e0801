/* stack.h: stacks of their own for the threads of an emulated block, and the way from one to the other. */
#ifndef TESTS_EMU_STACK_H
#define TESTS_EMU_STACK_H

#include <memory>
#include <ucontext.h>

struct emu_stack {
    ucontext_t begin;
    void (*run)(void);
    bool begun;
    void *at[5]; // where it was left, by __builtin_setjmp
    std::unique_ptr<char[]> memory;
};

/* The next switch to s calls run, which never returns: it ends by a switch back. */
void emu_stack_start(emu_stack &s, void (*run)(void));

/* From the scheduler to s; returns when s switches back. */
void emu_switch_to(emu_stack &s);

/* From s, which runs, to the scheduler; returns at the next switch to s. */
void emu_switch_back(emu_stack &s);

#endif
