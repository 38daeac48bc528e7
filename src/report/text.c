/* SPDX-License-Identifier: BSD-3-Clause */
/* Locale-independent: the program never calls setlocale(). */
#include "src/report/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const char dash[] = "–";

static shoal_text_t __attribute__((format(printf, 2, 3))) text(double value, const char *format, ...)
{
    shoal_text_t t;
    va_list      args;
    va_start(args, format);
    int n = vsnprintf(t.s, sizeof(t.s), format, args);
    va_end(args);
    if (!isfinite(value)) {
        snprintf(t.s, sizeof(t.s), "%s", dash);
    } else if (n >= (int)sizeof(t.s)) { /* no number of ours, and cut off it would look like another */
        snprintf(t.s, sizeof(t.s), "%.3g", value);
    }
    return t;
}

/* How many bytes the UTF-8 character has that begins here; 0: there is none, or it is a control character. */
static size_t character_nbytes(const unsigned char *text)
{
    if (text[0] < 0x80) {
        return text[0] >= 0x20 && text[0] != 0x7f;
    }
    size_t   n     = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    uint32_t value = text[0] & (0x7fU >> n);
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (text[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000}; /* 0x80 to 0x9f are control characters too */
    bool surrogate = value >= 0xd800 && value < 0xe000;
    return text[0] < 0xc2 || value < least[n] || value > 0x10ffff || surrogate ? 0 : n;
}

void shoal_text_clean(char *text)
{
    while (*text != '\0') {
        size_t n = *text == '\n' ? 1 : character_nbytes((const unsigned char *)text);
        if (n == 0) {
            *text = *text == '\t' ? ' ' : '?';
        }
        text += n == 0 ? 1 : n;
    }
}

shoal_text_t shoal_text_count(double value)
{
    shoal_text_t plain = text(value, "%.0f", value), grouped = {.s = ""};
    size_t       n = strlen(plain.s), sign = plain.s[0] == '-', used = 0;
    if (!isfinite(value) || n > 30) {
        return plain;
    }
    for (size_t i = 0; i < n; i++) {
        if (i > sign && (n - i) % 3 == 0) {
            grouped.s[used++] = ',';
        }
        grouped.s[used++] = plain.s[i];
    }
    return grouped;
}

shoal_text_t shoal_text_fixed(double value, int digits)
{
    return text(value, "%.*f", digits, value);
}

shoal_text_t shoal_text_percent(double fraction)
{
    return text(fraction, "%.1f %%", fraction * 100);
}

/* Value over the largest unit that it reaches, `step` apart, with three to four digits. */
static shoal_text_t scaled(double value, double step, const char *const *units, int nunits)
{
    int    unit = 0;
    double x    = value;
    while (unit < nunits - 1 && fabs(x) >= step) {
        x /= step;
        unit++;
    }
    int digits = unit == 0 ? 0 : fabs(x) < 100 ? 2 : 1;
    return text(value, "%.*f %s", digits, x, units[unit]);
}

shoal_text_t shoal_text_bytes(double nbytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    return scaled(nbytes, 1024, units, 5);
}

shoal_text_t shoal_text_large(double value)
{
    static const char *const units[] = {"", "K", "M", "B", "T"};
    return scaled(value, 1000, units, 5);
}

shoal_text_t shoal_text_si(double value)
{
    static const char *const units[] = {"", "K", "M", "G", "T"};
    return scaled(value, 1000, units, 5);
}

shoal_text_t shoal_text_flops(double flops)
{
    static const char *const units[] = {"FLOP/s", "KFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s"};
    return scaled(flops, 1000, units, 6);
}

shoal_text_t shoal_text_days(double days)
{
    return days < 0.1 ? text(days, "%.2g (%.1f h)", days, days * 24) : text(days, "%.1f", days);
}
