dnl SPDX-License-Identifier: BSD-3-Clause
dnl
dnl SHOAL_DEP(NAME, required|optional, PKG-CONFIG MODULES, HEADER, FUNCTION, LIBS, [INCLUDES THAT HEADER NEEDS])
dnl
dnl The one way in which shoal looks for a library. --with-NAME has three states:
dnl   guess   (the default) ask pkg-config, then the compiler's own search path; an optional library may be missing
dnl   PATH    look below PATH only; that it is not there is fatal ("yes" is a guess that must succeed)
dnl   no      do not look; only for optional libraries
dnl NAME_CFLAGS and NAME_LIBS, when given to configure, replace all guessing. The modules are alternatives, tried in order.
dnl
dnl Sets NAME_CFLAGS and NAME_LIBS for the Makefile, SHOAL_HAVE_NAME in config.h and as a conditional of automake, and one
dnl line of the summary. What was found is compiled and linked before it is believed; no other flag is left changed.
AC_DEFUN([SHOAL_DEP], [
m4_pushdef([DEP], m4_toupper([$1]))dnl
AC_ARG_WITH([$1],
  [AS_HELP_STRING([--with-$1@<:@=guess|yes|no|PATH@:>@],
     m4_if([$2], [required], [[where $1 is installed]], [[use $1, and where it is installed]]))],
  [], [with_$1=guess])
AC_ARG_VAR(DEP[_CFLAGS], [compiler flags for $1, instead of looking for it])
AC_ARG_VAR(DEP[_LIBS], [linker flags for $1, instead of looking for it])
shoal_have_$1=no
AS_IF([test "x$with_$1" != xno], [
  _SHOAL_DEP_FLAGS([$1], [$3], [$6], [$4])
  _SHOAL_DEP_TRY([$1], [$4], [$5], [$7])
], [shoal_why_$1='not asked for'])
AS_IF([test "x$shoal_have_$1" = xyes],
  [AC_DEFINE([SHOAL_HAVE_]DEP, [1], [Whether this build has $1.])
   SHOAL_SUMMARY_ADD([$1], [yes${shoal_from_$1:+, $shoal_from_$1}])],
  [m4_if([$2], [required],
     [AC_MSG_ERROR([shoal needs $1: $shoal_why_$1. Install its development package or say --with-$1=PATH])],
     [AS_CASE(["$with_$1"], [guess|no], [],
        [AC_MSG_ERROR([--with-$1=$with_$1 was asked for, but $shoal_why_$1])])])
   DEP[]_CFLAGS= DEP[]_LIBS=
   SHOAL_SUMMARY_ADD([$1], [no ($shoal_why_$1)])])
AM_CONDITIONAL([HAVE_]DEP, [test "x$shoal_have_$1" = xyes])
m4_popdef([DEP])dnl
])

dnl Sets NAME_CFLAGS and NAME_LIBS to the best guess, and shoal_from_NAME to where it came from.
AC_DEFUN([_SHOAL_DEP_FLAGS], [
AS_CASE(["${DEP[]_CFLAGS+set}${DEP[]_LIBS+set}:$with_$1"],
  [*set*], [shoal_from_$1='as given'],
  [:guess|:yes], [
    DEP[]_LIBS="$3"
    for shoal_module in $2; do
      AS_IF([$PKG_CONFIG --exists "$shoal_module" 2>/dev/null], [
        DEP[]_CFLAGS=$($PKG_CONFIG --cflags "$shoal_module")
        DEP[]_LIBS=$($PKG_CONFIG --libs "$shoal_module")
        shoal_from_$1="$shoal_module $($PKG_CONFIG --modversion "$shoal_module")"
        break])
    done],
  [AS_IF([! test -e "$with_$1/include/$4"], [AC_MSG_ERROR([--with-$1=$with_$1: there is no include/$4 below that])])
   DEP[]_CFLAGS="-I$with_$1/include"
   shoal_libdir=$with_$1/lib
   AS_IF([test -d "$with_$1/lib64"], [shoal_libdir=$with_$1/lib64])
   DEP[]_LIBS="-L$shoal_libdir -Wl,-rpath,$shoal_libdir $3"
   shoal_from_$1="in $with_$1"])
])

dnl Compiles and links a call; sets shoal_have_NAME, or shoal_why_NAME.
AC_DEFUN([_SHOAL_DEP_TRY], [
shoal_save_CPPFLAGS=$CPPFLAGS shoal_save_LIBS=$LIBS
CPPFLAGS="$CPPFLAGS $DEP[]_CFLAGS" LIBS="$DEP[]_LIBS $LIBS"
AC_MSG_CHECKING([for $1 ($2, $3)])
AC_LINK_IFELSE([AC_LANG_PROGRAM([[$4
#include <$2>]], [[return (void *)$3 == (void *)0;]])],
  [shoal_have_$1=yes],
  [AC_PREPROC_IFELSE([AC_LANG_SOURCE([[$4
#include <$2>]])],
     [shoal_why_$1='$3 does not link'], [shoal_why_$1='$2 was not found'])])
AC_MSG_RESULT([$shoal_have_$1])
CPPFLAGS=$shoal_save_CPPFLAGS LIBS=$shoal_save_LIBS
])
