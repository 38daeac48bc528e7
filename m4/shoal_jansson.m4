dnl SPDX-License-Identifier: BSD-3-Clause
dnl Records and reports are JSON.
AC_DEFUN([SHOAL_JANSSON],
  [SHOAL_DEP([jansson], [required], [jansson], [jansson.h], [json_loads], [-ljansson])])
