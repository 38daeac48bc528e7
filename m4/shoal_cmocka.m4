dnl SPDX-License-Identifier: BSD-3-Clause
dnl The unit tests' library. Without it `make check` runs the shell tests only.
AC_DEFUN([SHOAL_CMOCKA],
  [SHOAL_DEP([cmocka], [optional], [cmocka], [cmocka.h], [_cmocka_run_group_tests], [-lcmocka], [
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>])])
