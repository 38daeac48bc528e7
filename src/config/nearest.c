/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The optimal string alignment distance: Levenshtein's, plus the swap of two neighbouring letters, which is the commonest
 * slip of the hand. The words are short, so the full table lives on the stack.
 */
#include "src/config/nearest.h"

#include <string.h>

enum { WORD_MAX = 63 };

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

size_t shoal_edit_distance(const char *a, const char *b)
{
    size_t na = strnlen(a, WORD_MAX), nb = strnlen(b, WORD_MAX);
    size_t d[WORD_MAX + 1][WORD_MAX + 1]; /* d[i][j]: between the first i letters of a and the first j of b */
    for (size_t i = 0; i <= na; i++) {
        d[i][0] = i;
    }
    for (size_t j = 0; j <= nb; j++) {
        d[0][j] = j;
    }
    for (size_t i = 1; i <= na; i++) {
        for (size_t j = 1; j <= nb; j++) {
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < d[i][j]) {
                d[i][j] = d[i - 2][j - 2] + 1;
            }
        }
    }
    return d[na][nb];
}
