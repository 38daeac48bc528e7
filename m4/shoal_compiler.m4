dnl SPDX-License-Identifier: BSD-3-Clause

dnl SHOAL_ADD_CFLAG(VARIABLE, FLAG): appends FLAG if the compiler knows it.
AC_DEFUN([SHOAL_ADD_CFLAG], [
AC_MSG_CHECKING([whether $CC knows $2])
shoal_save_CFLAGS=$CFLAGS
CFLAGS="$CFLAGS -Werror $2"
AC_COMPILE_IFELSE([AC_LANG_PROGRAM()],
  [$1="$$1 $2"
   AC_MSG_RESULT([yes])],
  [AC_MSG_RESULT([no])])
CFLAGS=$shoal_save_CFLAGS
])

dnl C17 with the GNU extensions, and warnings: fatal on our own machines (--enable-werror), never at a packager's, whose
dnl compiler may know new ones.
AC_DEFUN([SHOAL_COMPILER], [
SHOAL_CFLAGS=
SHOAL_ADD_CFLAG([SHOAL_CFLAGS], [-std=gnu17])
AS_CASE(["$SHOAL_CFLAGS"], [*gnu17*], [], [AC_MSG_ERROR([shoal is written in C17, which $CC does not know])])
AC_ARG_ENABLE([werror],
  [AS_HELP_STRING([--enable-werror], [warnings are errors (for work on shoal itself)])],
  [], [enable_werror=no])
dnl A name that snprintf cuts off is a name; and the pragmas are OpenMP's.
for shoal_flag in -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
  -Wno-format-truncation -Wno-unknown-pragmas; do
  SHOAL_ADD_CFLAG([SHOAL_CFLAGS], [$shoal_flag])
done
AS_IF([test "x$enable_werror" = xyes], [SHOAL_CFLAGS="$SHOAL_CFLAGS -Werror"])
AC_SUBST([SHOAL_CFLAGS])
])

dnl SIMD kernels are compiled once per instruction set and chosen at run time by what the processor reports.
AC_DEFUN([SHOAL_X86_SIMD], [
AVX2_CFLAGS='-mavx2 -mfma'
AVX512_CFLAGS='-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512'
shoal_x86_simd=no
AS_CASE([$host_cpu], [x86_64], [
  SHOAL_ADD_CFLAG([shoal_simd_flags], [$AVX2_CFLAGS $AVX512_CFLAGS])
  AS_IF([test -n "$shoal_simd_flags"], [shoal_x86_simd=yes])])
AS_IF([test $shoal_x86_simd = yes],
  [AC_DEFINE([SHOAL_HAVE_X86_SIMD], [1], [Whether this build has the AVX2 and AVX-512 kernels.])])
AM_CONDITIONAL([HAVE_X86_SIMD], [test $shoal_x86_simd = yes])
AC_SUBST([AVX2_CFLAGS])
AC_SUBST([AVX512_CFLAGS])
])

dnl --enable-sanitize=address,undefined or =thread: flags for compiling and linking everything.
AC_DEFUN([SHOAL_SANITIZE], [
AC_ARG_ENABLE([sanitize],
  [AS_HELP_STRING([--enable-sanitize=LIST], [build with these sanitizers: address,undefined or thread])],
  [], [enable_sanitize=no])
SANITIZE_CFLAGS=
AS_CASE([$enable_sanitize],
  [no], [],
  [yes], [AC_MSG_ERROR([--enable-sanitize wants a list, such as address,undefined])],
  [SHOAL_ADD_CFLAG([SANITIZE_CFLAGS], [-fsanitize=$enable_sanitize -fno-omit-frame-pointer])
   AS_IF([test -z "$SANITIZE_CFLAGS"], [AC_MSG_ERROR([$CC does not know -fsanitize=$enable_sanitize])])
   SANITIZE_CFLAGS="$SANITIZE_CFLAGS -fno-sanitize-recover=all"])
AC_SUBST([SANITIZE_CFLAGS])
AM_CONDITIONAL([SANITIZE_ANY], [test "x$enable_sanitize" != xno])
AM_CONDITIONAL([SANITIZE_THREAD], [test "x$enable_sanitize" = xthread])
])
