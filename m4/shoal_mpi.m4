dnl SPDX-License-Identifier: BSD-3-Clause
dnl
dnl MPI: a bootstrap and a transport. The modules of Open MPI and MPICH are asked first; where there are none, or a PATH is
dnl given, the compiler wrapper says what it would add (--showme in Open MPI, -compile_info in MPICH).
AC_DEFUN([SHOAL_MPI], [
AS_CASE([${with_mpi-guess}],
  [no], [],
  [guess|yes],
    [AS_IF([! $PKG_CONFIG --exists ompi-c && ! $PKG_CONFIG --exists mpich], [_SHOAL_MPI_WRAPPER([mpicc])])],
  [_SHOAL_MPI_WRAPPER([$with_mpi/bin/mpicc])])
SHOAL_DEP([mpi], [optional], [ompi-c mpich], [mpi.h], [MPI_Init_thread], [-lmpi])
])

dnl Takes MPI_CFLAGS and MPI_LIBS from a wrapper, unless they are given or the wrapper says nothing.
AC_DEFUN([_SHOAL_MPI_WRAPPER], [
AS_IF([test -z "${MPI_CFLAGS+set}${MPI_LIBS+set}" && shoal_mpi_c=$($1 --showme:compile 2>/dev/null)],
  [MPI_CFLAGS=$shoal_mpi_c
   MPI_LIBS=$($1 --showme:link)],
  [test -z "${MPI_CFLAGS+set}${MPI_LIBS+set}" && shoal_mpi_c=$($1 -compile_info 2>/dev/null)],
  [MPI_CFLAGS=${shoal_mpi_c#* }
   MPI_LIBS=$($1 -link_info)
   MPI_LIBS=${MPI_LIBS#* }])
])
