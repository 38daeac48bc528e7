dnl SPDX-License-Identifier: BSD-3-Clause
dnl Configuration files.
AC_DEFUN([SHOAL_LIBCONFIG],
  [SHOAL_DEP([libconfig], [required], [libconfig], [libconfig.h], [config_read_file], [-lconfig])])
