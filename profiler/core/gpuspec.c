/* The table, and how a device name finds its row. Peaks are TFLOP/s, dense; read mid to late 2026. */
#include "profiler/core/gpuspec.h"

#include <ctype.h>
#include <string.h>

#define WORDS      16
#define WORD_BYTES 24

/* Where the numbers were read. */
#define MLE                                                                                        \
    "ml-engineering accelerator table, from the vendor's datasheets; agrees with torchtitan, "     \
    "composer"
#define CALC "SMs x boost clock x FLOP/clock/SM of the class, within 1 % of the vendor's sheet"
#define BLOG "vendor comparison pages (verda, datacrunch) and ml-engineering"

static const struct mp_gpu table[] = {
    {"A100 40GB", "a100 40gb", "sxm sxm4 pcie", 80, 108, 0, 1410, 312, 156, 0, 1555, MLE, ""},
    {"A100 80GB SXM", "a100 80gb sxm4|a100 80gb sxm", "", 80, 108, 0, 1410, 312, 156, 0, 2039, MLE,
     ""},
    {"A100 80GB PCIe", "a100 80gb pcie", "", 80, 108, 0, 1410, 312, 156, 0, 1935, MLE, ""},
    {"A800", "a800", "sxm sxm4 pcie 40gb 80gb", 80, 108, 0, 1410, 312, 156, 0, 0, MLE,
     "an A100 with slower NVLink; bandwidth as the A100 of the same size"},
    {"H100 SXM", "h100 hbm3|h100 sxm|h100 sxm5", "80gb sxm sxm5 hbm3", 90, 132, 0, 1830, 989.4,
     494.7, 1979, 3350, MLE, "the peak stands for 1830 MHz; the device may clock up to 1980"},
    {"H100 PCIe", "h100 pcie", "80gb hbm2e", 90, 114, 0, 0, 756, 378, 1513, 2039, MLE,
     "boost clock of the sheet (1755) does not give this peak; about 1620 MHz does"},
    {"H100 NVL", "h100 nvl", "94gb hbm3", 90, 0, 0, 0, 835.5, 417.5, 1671, 3900, MLE, ""},
    {"H200 SXM", "h200", "sxm sxm5 141gb hbm3e", 90, 132, 0, 1830, 989.4, 494.7, 1979, 4800, MLE,
     ""},
    {"H200 NVL", "h200 nvl", "141gb hbm3e", 90, 0, 0, 0, 835.5, 418, 1671, 4800, MLE,
     "one table says 840"},
    {"H800 SXM", "h800", "sxm sxm5 80gb hbm3", 90, 132, 0, 1830, 989, 494.7, 1979, 3350, MLE,
     "an H100 SXM with FP64 and NVLink cut; the PCIe card is another device"},
    {"H20", "h20", "sxm sxm5 96gb hbm3", 90, 78, 0, 0, 148, 74, 296, 4000, "zangshuxian H20 sheet",
     "a quarter of the H100's rate per SM: a peak derived from SMs and clock is 4 times too high"},
    {"GH200 96GB", "gh200 480gb|gh200 96gb", "hbm3", 90, 132, 0, 1830, 989, 494.5, 1979, 4000, MLE,
     ""},
    {"GH200 144GB", "gh200 144g|gh200 144gb|gh200 141gb", "hbm3e", 90, 132, 0, 1830, 989, 494.5,
     1979, 4800, MLE, ""},
    {"B100", "b100", "sxm6 hbm3e 192gb", 100, 0, 0, 0, 1750, 875, 3500, 8000,
     "nsys-ai hardware table", "1800 is also seen"},
    {"B200", "b200", "sxm6 hbm3e 180gb 192gb", 100, 148, 0, 0, 2250, 1125, 4500, 8000, BLOG,
     "bandwidth is given as 7700 to 8000"},
    {"GB200", "gb200", "hbm3e", 100, 148, 152, 0, 2500, 1250, 5000, 8000, BLOG,
     "per GPU; verda says 2250"},
    {"B300", "b300", "sxm6 ac hbm3e", 103, 148, 152, 0, 2250, 1125, 4500, 8000, BLOG,
     "sold with 148 and with 152 SMs; one page says 3500 dense, contradicted by the DGX sheet"},
    {"GB300", "gb300", "hbm3e", 103, 0, 0, 0, 2500, 1250, 5000, 8000, BLOG, "per GPU"},
    {"L4", "l4", "24gb", 89, 58, 0, 2040, 121, 60, 242, 300, MLE, "TF32 is given as 60 and as 120"},
    {"L40", "l40", "48gb", 89, 142, 0, 2490, 181, 90.5, 362, 864, MLE, "half the L40S's rate"},
    {"L40S", "l40s", "48gb", 89, 142, 0, 2490, 362, 183, 733, 864, MLE, ""},
    {"A10", "a10", "24gb pcie", 86, 72, 0, 1695, 125, 62.5, 0, 600, MLE, ""},
    {"A10G", "a10g", "24gb", 86, 80, 0, 1710, 70, 35, 0, 600, CALC,
     "half rate per SM, unlike the A10; the vendor's sheet was not read"},
    {"A40", "a40", "48gb pcie", 86, 84, 0, 1740, 149.7, 74.8, 0, 696, "ecer A40 sheet; " CALC, ""},
    {"RTX A6000", "rtx a6000", "48gb", 86, 84, 0, 1800, 154.8, 77.4, 0, 768, CALC,
     "310 elsewhere is with sparsity"},
    {"GeForce RTX 3090", "geforce rtx 3090", "24gb", 86, 82, 0, 1695, 71, 35.6, 0, 936, CALC,
     "half rate with FP32 accumulate, which training uses"},
    {"GeForce RTX 4090", "geforce rtx 4090", "24gb", 89, 128, 0, 2520, 165.2, 82.6, 330.3, 1008,
     CALC, "half rate with FP32 accumulate, which training uses"},
    {"RTX 6000 Ada", "rtx 6000 ada", "generation 48gb", 89, 142, 0, 2505, 364.25, 182, 728.5, 960,
     CALC, ""},
    {"GeForce RTX 5090", "geforce rtx 5090", "32gb", 120, 170, 0, 2407, 209.5, 104.8, 419, 1792,
     CALC,
     "half rate with FP32 accumulate, which training uses; 838 elsewhere is with sparsity and FP16 "
     "accumulate"},
    {"RTX PRO 6000 Blackwell", "rtx pro 6000 blackwell workstation|rtx pro 6000 blackwell",
     "edition 96gb", 120, 188, 0, 2617, 503.8, 251.9, 1007, 1792, "hmc-tech sheet; " CALC,
     "the Max-Q and server editions run slower and have no row"},
};

/* Vendor words that tell nothing apart. */
static const char anywhere[] = "nvidia tesla";

/* ---- words -------------------------------------------------------------------------------- */

struct words {
    char word[WORDS][WORD_BYTES];
    int n;
};

/* Lower-case words of text up to `end`; -1 when there are too many or they are too long. */
static int words_split(struct words *w, const char *text, char end)
{
    int at = 0;

    w->n = 0;
    for (; *text && *text != end; text++) {
        if (!isalnum((unsigned char)*text)) {
            w->n += at > 0;
            at = 0;
            continue;
        }
        if (w->n == WORDS || at + 1 >= WORD_BYTES)
            return -1;
        w->word[w->n][at++] = (char)tolower((unsigned char)*text);
        w->word[w->n][at] = 0;
    }
    w->n += at > 0;
    return 0;
}

static bool has(const struct words *w, const char *word)
{
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->word[i], word) == 0)
            return true;
    return false;
}

/* How many words the alternative needs when all of them are there and nothing else is; else 0. */
static int match_alternative(const struct words *name, const char *need, const char *may)
{
    struct words needed, allowed, common;

    words_split(&needed, need, '|');
    words_split(&allowed, may, 0);
    words_split(&common, anywhere, 0);
    for (int i = 0; i < needed.n; i++)
        if (!has(name, needed.word[i]))
            return 0;
    for (int i = 0; i < name->n; i++)
        if (!has(&needed, name->word[i]) && !has(&allowed, name->word[i]) &&
            !has(&common, name->word[i]))
            return 0;
    return needed.n;
}

static int match(const struct words *name, const struct mp_gpu *gpu)
{
    int best = 0;

    for (const char *need = gpu->need; need; need = strchr(need, '|')) {
        need += *need == '|';
        int n = match_alternative(name, need, gpu->may);

        best = n > best ? n : best;
    }
    return best;
}

/* ---- public ------------------------------------------------------------------------------- */

const struct mp_gpu *mp_gpu_find(const char *name, int cc, int sm_count)
{
    const struct mp_gpu *best = NULL;
    int most = 0;
    struct words words;

    if (words_split(&words, name, 0) != 0)
        return NULL;
    for (size_t i = 0; i < countof(table); i++) {
        int n = match(&words, &table[i]);

        if (n > most) {
            most = n;
            best = &table[i];
        }
    }
    if (!best || (cc > 0 && cc != best->cc))
        return NULL;
    if (sm_count > 0 && best->sm > 0 && sm_count != best->sm && sm_count != best->sm_also)
        return NULL; /* a slice of it, or a cut-down part under the same name */
    return best;
}

size_t mp_gpu_suggest(const char *name, const struct mp_gpu **out, size_t n)
{
    struct words asked, known;
    size_t found = 0;

    if (words_split(&asked, name, 0) != 0)
        return 0;
    for (size_t i = 0; i < countof(table) && found < n; i++) {
        bool shares = false;

        words_split(&known, table[i].name, 0);
        for (int w = 0; w < asked.n; w++)
            shares |= has(&known, asked.word[w]) && strlen(asked.word[w]) > 1;
        if (shares)
            out[found++] = &table[i];
    }
    return found;
}

double mp_gpu_peak(const struct mp_gpu *gpu, enum mp_dtype dtype)
{
    switch (dtype) {
    case MP_DTYPE_BF16:
    case MP_DTYPE_FP16: /* equal on every row: both with FP32 accumulate */
        return gpu->bf16 * 1e12;
    case MP_DTYPE_TF32:
        return gpu->tf32 * 1e12;
    case MP_DTYPE_FP8:
        return gpu->fp8 * 1e12;
    default:
        return 0;
    }
}

const struct mp_gpu *mp_gpu_at(size_t i)
{
    return i < countof(table) ? &table[i] : NULL;
}

static const char *const dtype_name[MP_DTYPE_COUNT] = {
    [MP_DTYPE_BF16] = "bf16",
    [MP_DTYPE_FP16] = "fp16",
    [MP_DTYPE_TF32] = "tf32",
    [MP_DTYPE_FP8] = "fp8",
};

const char *mp_dtype_name(enum mp_dtype dtype)
{
    return (unsigned)dtype < MP_DTYPE_COUNT ? dtype_name[dtype] : "unknown";
}

int mp_dtype_parse(const char *name)
{
    static const struct {
        const char *name;
        int dtype;
    } alias[] = {
        {"bfloat16", MP_DTYPE_BF16}, {"bf16", MP_DTYPE_BF16}, {"float16", MP_DTYPE_FP16},
        {"fp16", MP_DTYPE_FP16},     {"half", MP_DTYPE_FP16}, {"tf32", MP_DTYPE_TF32},
        {"fp8", MP_DTYPE_FP8},
    };

    for (size_t i = 0; i < countof(alias); i++)
        if (strcmp(alias[i].name, name) == 0)
            return alias[i].dtype;
    return strncmp(name, "float8_", 7) == 0 ? MP_DTYPE_FP8 : -1;
}
