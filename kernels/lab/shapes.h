/* shapes.h: MoE layers by name, for programs that time: hidden size, width of an expert, experts, experts a token. */
#ifndef KERNELS_LAB_SHAPES_H
#define KERNELS_LAB_SHAPES_H

struct shape {
    const char *name;
    int hidden, inter, n_expert, top_k;
};

static const struct shape shapes[] = {
    { "qwen3-30b", 2048, 768, 128, 8 },
    { "qwen3-235b", 4096, 1536, 128, 8 },
    { "qwen3-next", 2048, 512, 512, 10 },
    { "dsv3", 7168, 2048, 256, 8 },
    { "glm45", 5120, 1536, 160, 8 },
    { "glm45-air", 4096, 1408, 128, 8 },
    { "ernie21b", 2560, 1536, 64, 6 },
    { "dots1", 4096, 1408, 128, 6 },
    { "mixtral", 4096, 14336, 8, 2 },
    { "gptoss20b", 2880, 2880, 32, 4 },
    { "gptoss120b", 2880, 2880, 128, 4 },
    { "olmoe", 2048, 1024, 64, 8 },
    /* those that SonicMoE was published with */
    { "s1.4b-n256", 768, 256, 128, 8 },
    { "s1.4b-n512", 768, 512, 64, 4 },
    { "s1.4b-n1024", 768, 1024, 32, 2 },
    { "s7b-n256", 1536, 256, 128, 8 },
    { "s7b-n512", 1536, 512, 64, 4 },
    { "s7b-n1024", 1536, 1024, 32, 2 },
    { "s30b-n256", 4096, 256, 256, 16 },
    { "s30b-n512", 4096, 512, 128, 8 },
    { "s30b-n1024", 4096, 1024, 64, 4 },
    { "s120b-n512", 4096, 512, 256, 16 },
    { "s120b-n1024", 4096, 1024, 128, 8 },
    { "s120b-n2048", 4096, 2048, 64, 4 },
};
enum { N_SHAPE = sizeof shapes / sizeof *shapes };

#endif
