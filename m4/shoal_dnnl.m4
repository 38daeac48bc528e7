dnl SPDX-License-Identifier: BSD-3-Clause
dnl oneDNN, for matrix products on the CPU. It brings no module for pkg-config.
AC_DEFUN([SHOAL_DNNL],
  [SHOAL_DEP([dnnl], [optional], [dnnl], [oneapi/dnnl/dnnl.h], [dnnl_engine_create], [-ldnnl])])
