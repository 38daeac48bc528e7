dnl SPDX-License-Identifier: BSD-3-Clause
dnl Checksums of checkpoints, keys of the generator.
AC_DEFUN([SHOAL_XXHASH],
  [SHOAL_DEP([xxhash], [required], [libxxhash], [xxhash.h], [XXH64], [-lxxhash])])
