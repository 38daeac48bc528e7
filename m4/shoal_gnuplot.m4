dnl SPDX-License-Identifier: BSD-3-Clause
dnl gnuplot draws the plots of a report when the command runs; the build only says whether it is there.
AC_DEFUN([SHOAL_PROG_GNUPLOT], [
AC_ARG_WITH([gnuplot],
  [AS_HELP_STRING([--with-gnuplot@<:@=guess|yes|no|PATH@:>@], [the gnuplot program that draws the plots of reports])],
  [], [with_gnuplot=guess])
AS_CASE([$with_gnuplot],
  [guess|yes], [AC_PATH_PROG([GNUPLOT], [gnuplot])],
  [no], [GNUPLOT=],
  [GNUPLOT=$with_gnuplot
   AS_IF([test -d "$with_gnuplot"], [GNUPLOT=$with_gnuplot/bin/gnuplot])
   AS_IF([! test -x "$GNUPLOT"], [GNUPLOT=])])
AS_IF([test -n "$GNUPLOT"],
  [AC_DEFINE_UNQUOTED([SHOAL_GNUPLOT], ["$GNUPLOT"], [The gnuplot program that the build found.])
   SHOAL_SUMMARY_ADD([gnuplot], [$GNUPLOT])],
  [AS_CASE([$with_gnuplot], [guess|no], [],
     [AC_MSG_ERROR([--with-gnuplot=$with_gnuplot was asked for, but there is no such program])])
   SHOAL_SUMMARY_ADD([gnuplot], [no (reports take what is on the PATH, else have no plots)])])
])
