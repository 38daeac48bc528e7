dnl SPDX-License-Identifier: BSD-3-Clause

dnl SHOAL_SUMMARY_ADD(NAME, TEXT): one line of the summary. TEXT is expanded by the shell.
AC_DEFUN([SHOAL_SUMMARY_ADD], [shoal_summary="$shoal_summary
  $(printf '%-12s' '$1') $2"])

AC_DEFUN([SHOAL_SUMMARY], [
AC_MSG_NOTICE([shoal $PACKAGE_VERSION

  $(printf '%-12s' compiler) $CC $CFLAGS$SANITIZE_CFLAGS
  $(printf '%-12s' OpenMP) ${OPENMP_CFLAGS:-no}
  $(printf '%-12s' 'x86 SIMD') $shoal_x86_simd
  $(printf '%-12s' prefix) $prefix
$shoal_summary
])
])
