dnl SPDX-License-Identifier: BSD-3-Clause
dnl The transport with algorithms of our own.
AC_DEFUN([SHOAL_UCX],
  [SHOAL_DEP([ucx], [optional], [ucx], [ucp/api/ucp.h], [ucp_worker_progress], [-lucp -lucs])])
