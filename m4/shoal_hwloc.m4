dnl SPDX-License-Identifier: BSD-3-Clause
dnl Cores, caches and where a rank is bound.
AC_DEFUN([SHOAL_HWLOC],
  [SHOAL_DEP([hwloc], [required], [hwloc], [hwloc.h], [hwloc_topology_load], [-lhwloc])])
