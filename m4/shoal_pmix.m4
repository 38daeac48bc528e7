dnl SPDX-License-Identifier: BSD-3-Clause
dnl How ranks find each other under srun and mpirun.
AC_DEFUN([SHOAL_PMIX],
  [SHOAL_DEP([pmix], [optional], [pmix], [pmix.h], [PMIx_Init], [-lpmix])])
