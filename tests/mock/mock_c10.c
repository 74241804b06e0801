/* Stand-in for libc10.so: gradient mode, and what the calling thread pretends to be. */
#include "tests/mock/mock.h"

#define EXPORT __attribute__((visibility("default")))

struct mock_torch *mock_torch(void);
bool _ZN3c108GradMode10is_enabledEv(void);

EXPORT struct mock_torch *mock_torch(void)
{
    static _Thread_local struct mock_torch self = {.grad = true, .use_count = 1};

    return &self;
}

EXPORT bool _ZN3c108GradMode10is_enabledEv(void)
{
    return mock_torch()->grad;
}
