/* SPDX-License-Identifier: BSD-3-Clause */
/* See the header. A choice is drawn from a list of words, with a word twice where it should come up
 * twice as often. */
#include "tests/fuzz_case.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"

size_t fuzz_draw(fuzz_case_t *drawn, size_t count)
{
    uint32_t words[4];
    shoal_rng_block(drawn->stream, drawn->ndrawn++, words);
    return words[0] % count;
}

static void __attribute__((format(printf, 2, 3)))
add(char text_p[FUZZ_TEXT_NBYTES], const char *format, ...)
{
    size_t  used = strlen(text_p);
    va_list args;
    va_start(args, format);
    vsnprintf(text_p + used, FUZZ_TEXT_NBYTES - used, format, args);
    va_end(args);
}

/* One of several strings, ended by NULL. */
static const char *one_of(fuzz_case_t *drawn, const char *const *choices)
{
    size_t count = 0;
    while (choices[count] != NULL) {
        count++;
    }
    return choices[fuzz_draw(drawn, count)];
}

#define ONE_OF(drawn, ...) one_of(drawn, (const char *const[]){__VA_ARGS__, NULL})

/* A divisor of n that is at most `limit`; every one is as likely. */
static size_t divisor(fuzz_case_t *drawn, size_t n, size_t limit)
{
    size_t divisors[64], count = 0;
    for (size_t d = 1; d <= n && d <= limit && count < 64; d++) {
        if (n % d == 0) {
            divisors[count++] = d;
        }
    }
    return divisors[fuzz_draw(drawn, count)];
}

static void draw_model(fuzz_case_t *drawn)
{
    char       *text   = drawn->model;
    const char *rope   = ONE_OF(drawn, "none", "interleaved", "half");
    bool        rotary = strcmp(rope, "none") != 0;
    drawn->heads       = 1 + fuzz_draw(drawn, 6);
    drawn->head_dim    = rotary ? 2 * (1 + fuzz_draw(drawn, 10)) : 1 + fuzz_draw(drawn, 20);
    drawn->vocab       = 2 + fuzz_draw(drawn, 200);
    add(text, "model.arch=%s model.heads=%zu model.head_dim=%zu",
        ONE_OF(drawn, "enoki", "llama", "gpt2"), drawn->heads, drawn->head_dim);
    add(text, " model.kv_heads=%zu model.layers=%zu", divisor(drawn, drawn->heads, drawn->heads),
        1 + fuzz_draw(drawn, 4));
    add(text, " model.ffn=%zu model.seq=%zu model.vocab=%zu", 1 + fuzz_draw(drawn, 70),
        1 + fuzz_draw(drawn, 24), drawn->vocab);
    add(text, " model.norm=%s model.act=%s", ONE_OF(drawn, "layernorm", "rmsnorm"),
        ONE_OF(drawn, "gelu", "gelu_tanh", "swiglu"));
    add(text, " model.rope=%s model.pos=%s", rope, ONE_OF(drawn, "none", "learned"));
    add(text, " model.qk_norm=%s model.bias=%s", ONE_OF(drawn, "true", "false"),
        ONE_OF(drawn, "true", "false"));
    add(text, " model.tied=%s", ONE_OF(drawn, "true", "false"));
    const char *residual = ONE_OF(drawn, "1", "0.5");
    drawn->nudge         = residual[0] == '1' ? "model.residual=1.0000001192092896"
                                              : "model.residual=0.50000005960464478";
    add(text, " model.z_loss=%s model.residual=%s", ONE_OF(drawn, "0", "0.0001"), residual);
    add(text, " model.rope_theta=%s", ONE_OF(drawn, "10000", "500"));
}

void fuzz_case_draw(uint64_t seed, const char *data_path, fuzz_case_t *case_p)
{
    char *text = case_p->model;
    *case_p    = (fuzz_case_t){.stream = shoal_rng_stream(seed, "fuzz")};
    draw_model(case_p);
    case_p->global = 12 * (1 + fuzz_draw(case_p, 2));
    add(text, " batch.global=%zu run.steps=%d run.seed=%zu", case_p->global, FUZZ_STEPS,
        fuzz_draw(case_p, 1000));
    add(text, " optim.name=%s optim.lr=0.001",
        ONE_OF(case_p, "adamw", "adana", "dana-mk4", "dana-star", "dana-star-mk4"));
    add(text, " optim.clip=%s optim.warmup=%zu", ONE_OF(case_p, "0", "0.5"), fuzz_draw(case_p, 3));
    add(text, " optim.schedule=%s", ONE_OF(case_p, "constant", "cos", "cos_inf", "wsd"));
    add(text, " data.train=%s data.order=%s", data_path, ONE_OF(case_p, "shuffle", "sequential"));
    add(text, " precision.compute=fp32 precision.gather=fp32 precision.reduce=fp32");
    add(text, " run.device=cpu run.timeout_s=60 machine.flops=1e9 machine.memory_gbs=1");
}

void fuzz_layout_draw(fuzz_case_t *drawn, const char *data_path, fuzz_layout_t *layout_p)
{
    char *text      = layout_p->words;
    *layout_p       = (fuzz_layout_t){.nranks = 1 + (int)fuzz_draw(drawn, 4)};
    layout_p->local = divisor(drawn, drawn->global / (size_t)layout_p->nranks, 6);
    bool one        = layout_p->nranks == 1;
    add(text, "batch.local=%zu batch.sync=%s", layout_p->local, ONE_OF(drawn, "last", "every"));
    add(text, " parallel.shard=%s parallel.prefetch=%s",
        ONE_OF(drawn, "full", "full", "grad", "none"),
        ONE_OF(drawn, "0", "1", "2", "3", "5", "17", "64"));
    add(text, " parallel.recompute=%s", ONE_OF(drawn, "none", "selective", "full"));
    add(text, " parallel.transport=%s",
        one ? ONE_OF(drawn, "auto", "self") : ONE_OF(drawn, "auto", "ucx"));
    const char *variant     = ONE_OF(drawn, "auto", "auto", "ref", "simd");
    layout_p->other_kernels = strcmp(variant, "auto") != 0;
    add(text, " run.threads=%s run.variant=%s", ONE_OF(drawn, "0", "1", "2"), variant);
    add(text, " run.head_chunk=%s", ONE_OF(drawn, "0", "1", "5", "7", "1000"));
    layout_p->records = fuzz_draw(drawn, 2) == 1;
    if (layout_p->records) {
        add(text, " run.trace_step=%zu", fuzz_draw(drawn, FUZZ_STEPS + 1));
        add(text, " data.valid=%s run.eval_every=%zu run.eval_batches=%zu", data_path,
            1 + fuzz_draw(drawn, 4), 1 + fuzz_draw(drawn, 2));
    }
}

void fuzz_mistake_draw(fuzz_case_t *drawn, const fuzz_layout_t *layout, size_t nbytes,
                       char *words_p)
{
    static const char *const fixed[] = {
        "model.head_dim=7 model.rope=half",
        "parallel.tp=2",
        "parallel.prefetch=65",
        "model.vocab=1",
        "model.vocab=65537",
        "parallel.shard=half",
        "run.stepz=3",
        "batch.local=0",
        "optim.beta1=1",
        "run.steps=1.5",
        "parallel.transport=tcp",
        "model.bias=yes",
        "run.eval_every=1 data.valid=",
        "optim.warmup=5",
        "run.trace_step=5",
        "optim.name=adamw optim.snr_clip=2",
        "precision.compute=fp64",
        "model.heads=0",
        "run.seed=-1",
        "optim.lr=0",
        "batch.accumulate=1000",
        "model.rope_theta=nan",
        "run.threads=4097",
        "model=3",
    };
    size_t kind = fuzz_draw(drawn, sizeof(fixed) / sizeof(fixed[0]) + 3);
    switch (kind) {
    case 0: snprintf(words_p, nbytes, "model.kv_heads=%zu", drawn->heads + 1); break;
    case 1:
        snprintf(words_p, nbytes, "model.d_model=%zu", drawn->heads * drawn->head_dim + 1);
        break;
    case 2:
        snprintf(words_p, nbytes, "batch.local=2 batch.global=%zu",
                 2 * layout->local * (size_t)layout->nranks + 1);
        break;
    default: snprintf(words_p, nbytes, "%s", fixed[kind - 3]); break;
    }
}
