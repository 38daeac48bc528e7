dnl SPDX-License-Identifier: BSD-3-Clause
dnl Random123, the counter-based generator: headers only, so there is nothing to link.
AC_DEFUN([SHOAL_RANDOM123], [
AC_ARG_WITH([random123],
  [AS_HELP_STRING([--with-random123@<:@=guess|PATH@:>@], [where Random123 is installed])],
  [], [with_random123=guess])
AC_ARG_VAR([RANDOM123_CFLAGS], [compiler flags for Random123, instead of looking for it])
AS_CASE(["${RANDOM123_CFLAGS+set}:$with_random123"],
  [:guess|:yes|set*], [],
  [:no], [AC_MSG_ERROR([shoal needs Random123])],
  [AS_IF([! test -e "$with_random123/include/Random123/philox.h"],
     [AC_MSG_ERROR([--with-random123=$with_random123: there is no include/Random123/philox.h below that])])
   RANDOM123_CFLAGS="-I$with_random123/include"])
shoal_save_CPPFLAGS=$CPPFLAGS
CPPFLAGS="$CPPFLAGS $RANDOM123_CFLAGS"
AC_CHECK_HEADER([Random123/philox.h], [],
  [AC_MSG_ERROR([shoal needs Random123: Random123/philox.h was not found. Install it or say --with-random123=PATH])])
CPPFLAGS=$shoal_save_CPPFLAGS
SHOAL_SUMMARY_ADD([random123], [yes])
])
