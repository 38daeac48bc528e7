/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * GPUs by name: NVIDIA's data sheets, and constants of the formulas in kernels/rates.h. Those of
 * matmuls and of collectives within a node were fitted to the tables of bf16 matmuls and of NCCL
 * that ai-dynamo/aiconfigurator measured (Apache-2.0, revision 095f58a,
 * systems/data/{h100,h200,a100}_sxm); the errors are those on rows that the fit left out. Only
 * products with a transposed weight are in them: the backward pass's other two, and fp32 results,
 * are not. Attention forward is FlashAttention-3's published curve times 0.92, what cuDNN reaches
 * of it; backward at a head width of 128 is cuDNN 9.19's on an H200, measured by NVIDIA
 * (cudnn-frontend, 2k to 32k tokens, within 4 %). For a backward pass with narrower heads there is
 * no such figure: three quarters of the wider ones' is assumed, and for the A100 four fifths of its
 * forward pass.
 */
#include "kernels/cuda/sheets.h"

#include <string.h>

static const char hopper_attention[] = "forward FlashAttention-3's curve x 0.92, backward cuDNN "
                                       "9.19 on H200 within 4 %; at head_dim 64 backward is assumed";
static const char ampere_attention[] =
    "forward cuDNN on A100 at head_dim 128; the rest is assumed from it";

#define HOPPER_ATTENTION                                                                           \
    {{{469e12, 1150}, {465e12, 1250}}, {{589e12, 900}, {620e12, 1250}}},                           \
        .attention_text = hopper_attention

static const shoal_rates_t h100 = {
    .name            = "H100 SXM",
    .multiprocessors = 132,
    .start_us        = 2.8,
    .flops           = 826e12,
    .wave_least      = 0.04,
    .wave_us         = 1.57,
    .memory_share    = 0.70,
    .slowdown        = 0.029,
    .matmul_error    = 0.047,
    .attention       = HOPPER_ATTENTION,
    .op_us           = 3,
    .stream_share    = 0.78,
    .coll            = {{{6.1, 362, 0.233}, {11.2, 358, 0.149}},
                        {{6.6, 333, 0.155}, {9.9, 347, 0.104}},
                        {{8.4, 376, 0.168}, {13.6, 503, 0.248}}},
    .coll_error      = 0.06,
    .card_gbs        = 50,
};

static const shoal_rates_t h200 = {
    .name            = "H200 SXM",
    .multiprocessors = 132,
    .start_us        = 2.7,
    .flops           = 822e12,
    .wave_least      = 0.03,
    .wave_us         = 1.33,
    .memory_share    = 0.50,
    .slowdown        = 0.043,
    .matmul_error    = 0.046,
    .attention       = HOPPER_ATTENTION,
    .op_us           = 3,
    .stream_share    = 0.78,
    .coll            = {{{6.2, 364, 0.219}, {11.2, 369, 0.160}},
                        {{6.0, 344, 0.167}, {10.5, 355, 0.113}},
                        {{8.6, 375, 0.153}, {15.1, 515, 0.237}}},
    .coll_error      = 0.06,
    .card_gbs        = 50,
};

static const shoal_rates_t a100 = {
    .name            = "A100 SXM",
    .multiprocessors = 108,
    .start_us        = 3.4,
    .flops           = 261e12,
    .wave_least      = 0.46,
    .wave_us         = 3.59,
    .memory_share    = 0.98,
    .slowdown        = 0.010,
    .matmul_error    = 0.054,
    .attention       = {{{185e12, 550}, {148e12, 550}}, {{206e12, 550}, {165e12, 550}}},
    .attention_text  = ampere_attention,
    .op_us           = 3,
    .stream_share    = 0.78,
    .coll            = {{{9.9, 232, 0.465}, {16.9, 207, 0.226}},
                        {{9.0, 246, 0.428}, {13.1, 229, 0.311}},
                        {{11.9, 233, 0.329}, {21.1, 230, 0.276}}},
    .coll_error      = 0.09,
    .card_gbs        = 25,
};

/*
 * Dense peaks, flop/s; the first name that the GPU's contains. Links are NVLink's, half of what the
 * sheet adds up over both ways, of GPUs that are always built with it: whether cards have bridges
 * the name does not tell.
 */
static const struct {
    const char          *name;
    double               bf16, f32, memory_gbs, link_gbs;
    const shoal_rates_t *rates;
} datasheets[] = {
    {"GH200", 989.4e12, 66.9e12, 4000, 0, NULL},
    {"H200 NVL", 835.5e12, 60e12, 4800, 0, NULL},
    {"H200", 989.4e12, 66.9e12, 4800, 450, &h200},
    {"H100 PCIe", 756e12, 51.2e12, 2000, 0, NULL},
    {"H100 NVL", 835.5e12, 60e12, 3900, 0, NULL},
    {"H100", 989.4e12, 66.9e12, 3350, 450, &h100},
    {"A100-SXM4-40GB", 312e12, 19.5e12, 1555, 300, &a100},
    {"A100-SXM4", 312e12, 19.5e12, 2039, 300, &a100},
    {"A100", 312e12, 19.5e12, 2039, 0, NULL},
};

void shoal_cuda_sheet(const char *name, shoal_device_info_t *info_p)
{
    for (size_t i = 0; i < sizeof(datasheets) / sizeof(datasheets[0]); i++) {
        if (strstr(name, datasheets[i].name) != NULL) {
            info_p->peak_bf16_flops = datasheets[i].bf16;
            info_p->peak_f32_flops  = datasheets[i].f32;
            info_p->memory_gbs      = datasheets[i].memory_gbs;
            info_p->link_gbs        = datasheets[i].link_gbs;
            info_p->rates           = datasheets[i].rates;
            return;
        }
    }
}

const shoal_cuda_planned_t *shoal_cuda_planned(const char *word)
{
    static const shoal_cuda_planned_t planned[] = {
        {"h200", "NVIDIA H200", 90, 132, 140},
        {"h100", "NVIDIA H100 80GB HBM3", 90, 132, 79},
        {"a100", "NVIDIA A100-SXM4-80GB", 80, 108, 79},
    };
    for (size_t i = 0; word != NULL && i < sizeof(planned) / sizeof(planned[0]); i++) {
        if (strcmp(word, planned[i].word) == 0) {
            return &planned[i];
        }
    }
    return &planned[0];
}
