dnl SPDX-License-Identifier: BSD-3-Clause
dnl
dnl The CUDA Toolkit: the compiler nvcc, its runtime and cuBLASLt; cuDNN, without which attention on the GPU is our own, slow
dnl kernel; and NCCL, without which there is one rank. --with-cuda has the three states of SHOAL_DEP; a guess looks for nvcc
dnl on the PATH, then in /usr/local/cuda. None of them needs a driver or a GPU to build or to link.
dnl
dnl Sets NVCC, NVCCFLAGS, CUDA_CFLAGS, CUDA_LIBS, NCCL_LIBS (without CUDA's), and CUDA_STUBS (the directory of the driver's link stub, for a test).
AC_DEFUN([SHOAL_CUDA], [
AC_ARG_WITH([cuda],
  [AS_HELP_STRING([--with-cuda@<:@=guess|yes|no|DIR@:>@], [use the CUDA Toolkit, and where it is installed])],
  [], [with_cuda=guess])
AC_ARG_VAR([NVCC], [CUDA compiler command])
AC_ARG_VAR([NVCCFLAGS], [CUDA compiler flags])
AC_ARG_VAR([CUDA_ARCH], [GPU architectures to compile for (default "80 90"); code for later ones is made from the last at run time])
: "${CUDA_ARCH=80 90}"
: "${NVCCFLAGS=-O3}"
shoal_have_cuda=no shoal_have_cudnn=no shoal_have_nccl=no NCCL_LIBS=
AS_CASE([$with_cuda],
  [no], [shoal_why_cuda='not asked for'],
  [guess|yes], [AC_PATH_PROG([NVCC], [nvcc], [], [$PATH$PATH_SEPARATOR/usr/local/cuda/bin])],
  [AC_PATH_PROG([NVCC], [nvcc], [], [$with_cuda/bin])])
AS_IF([test "x$with_cuda" != xno && test -z "$NVCC"], [shoal_why_cuda='nvcc was not found'])
AS_IF([test "x$with_cuda" != xno && test -n "$NVCC"], [
  shoal_cuda_dir=$(dirname "$(dirname "$(readlink -f "$NVCC")")")
  shoal_cuda_libdir=$shoal_cuda_dir/lib64
  AS_IF([test -d "$shoal_cuda_libdir"], [], [shoal_cuda_libdir=$shoal_cuda_dir/lib])
  AS_IF([test -e "$shoal_cuda_dir/include/cuda_runtime.h"],
    [CUDA_CFLAGS="-isystem $shoal_cuda_dir/include"
     CUDA_LIBS="-L$shoal_cuda_libdir -Wl,-rpath,$shoal_cuda_libdir -lcublasLt -lcudart -lstdc++"
     CUDA_STUBS=$shoal_cuda_libdir/stubs],
    [CUDA_CFLAGS= CUDA_LIBS='-lcublasLt -lcudart -lstdc++' CUDA_STUBS=])
  _SHOAL_CUDA_TRY([cuda], [cublasLt.h], [cublasLtCreate])
])
AS_IF([test $shoal_have_cuda = yes],
  [AC_DEFINE([SHOAL_HAVE_CUDA], [1], [Whether this build has the CUDA device.])
   shoal_nvcc_version=$("$NVCC" --version | sed -n 's/.*release \(@<:@0-9.@:>@*\).*/\1/p')
   SHOAL_SUMMARY_ADD([cuda], [yes, $shoal_nvcc_version, sm_$(echo $CUDA_ARCH | sed 's/ /, sm_/g')])
   _SHOAL_CUDA_LIBRARY([cudnn], [cudnn.h], [cudnnBackendExecute], [-lcudnn])
   AS_IF([test $shoal_have_cudnn = yes], [CUDA_LIBS="-lcudnn $CUDA_LIBS"])
   _SHOAL_CUDA_LIBRARY([nccl], [nccl.h], [ncclCommInitRankConfig], [-lnccl])
   AS_IF([test $shoal_have_nccl = yes], [NCCL_LIBS=-lnccl])],
  [AS_CASE([$with_cuda], [guess|no], [],
     [AC_MSG_ERROR([--with-cuda=$with_cuda was asked for, but $shoal_why_cuda])])
   CUDA_CFLAGS= CUDA_LIBS= CUDA_STUBS=
   SHOAL_SUMMARY_ADD([cuda], [no ($shoal_why_cuda)])])
NVCC_ARCH=
for shoal_arch in $CUDA_ARCH; do
  NVCC_ARCH="$NVCC_ARCH -gencode arch=compute_$shoal_arch,code=sm_$shoal_arch"
done
NVCC_ARCH="$NVCC_ARCH -gencode arch=compute_$shoal_arch,code=compute_$shoal_arch"
AC_SUBST([NVCC_ARCH])
AC_SUBST([CUDA_CFLAGS])
AC_SUBST([CUDA_LIBS])
AC_SUBST([NCCL_LIBS])
AC_SUBST([CUDA_STUBS])
AM_CONDITIONAL([HAVE_CUDA], [test $shoal_have_cuda = yes])
AM_CONDITIONAL([HAVE_CUDNN], [test $shoal_have_cudnn = yes])
AM_CONDITIONAL([HAVE_NCCL], [test $shoal_have_nccl = yes])
])

dnl _SHOAL_CUDA_LIBRARY(NAME, HEADER, FUNCTION, LIBRARY): one more library that stands beside the toolkit or in the system.
AC_DEFUN([_SHOAL_CUDA_LIBRARY], [
AC_ARG_WITH([$1],
  [AS_HELP_STRING([--with-$1@<:@=guess|yes|no@:>@], [use $1, which stands beside the CUDA Toolkit or in the system])],
  [], [with_$1=guess])
shoal_why_$1='not asked for'
shoal_cuda_save_LIBS=$CUDA_LIBS
AS_IF([test "x$with_$1" != xno], [
  CUDA_LIBS="$4 $CUDA_LIBS"
  _SHOAL_CUDA_TRY([$1], [$2], [$3])
  CUDA_LIBS=$shoal_cuda_save_LIBS])
AS_IF([test $shoal_have_$1 = yes],
  [AC_DEFINE([SHOAL_HAVE_]m4_toupper([$1]), [1], [Whether this build has $1.])
   SHOAL_SUMMARY_ADD([$1], [yes])],
  [AS_IF([test "x$with_$1" = xyes], [AC_MSG_ERROR([--with-$1 was asked for, but $shoal_why_$1])])
   SHOAL_SUMMARY_ADD([$1], [no ($shoal_why_$1)])])
])

dnl _SHOAL_CUDA_TRY(NAME, HEADER, FUNCTION): sets shoal_have_NAME, or shoal_why_NAME.
AC_DEFUN([_SHOAL_CUDA_TRY], [
shoal_save_CPPFLAGS=$CPPFLAGS shoal_save_LIBS=$LIBS
CPPFLAGS="$CPPFLAGS $CUDA_CFLAGS" LIBS="$CUDA_LIBS $LIBS"
AC_MSG_CHECKING([for $1 ($2, $3)])
AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <$2>]], [[return (void *)$3 == (void *)0;]])],
  [shoal_have_$1=yes],
  [shoal_have_$1=no shoal_why_$1='$2 with $3 was not found'])
AC_MSG_RESULT([$shoal_have_$1])
CPPFLAGS=$shoal_save_CPPFLAGS LIBS=$shoal_save_LIBS
])

dnl A C++ compiler, with which the tests run the CUDA device without a GPU: its kernels on the CPU (kernels/cuda/emulate.h), its host
dnl code on stand-ins for the toolkit's libraries (tests/standin), whose headers that takes. nvcc needs a C++ compiler anyway.
AC_DEFUN([SHOAL_CXX], [
AC_LANG_PUSH([C++])
AC_MSG_CHECKING([whether $CXX compiles C++17])
shoal_save_CXXFLAGS=$CXXFLAGS
CXXFLAGS="$CXXFLAGS -std=c++17"
AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <functional>
#if __cplusplus < 201703L
#error old
#endif]], [[std::function<int()> f = [] { return 0; }; return f();]])], [shoal_have_cxx=yes], [shoal_have_cxx=no])
CXXFLAGS=$shoal_save_CXXFLAGS
AC_MSG_RESULT([$shoal_have_cxx])
AC_LANG_POP([C++])
dnl The sanitizers do not follow coroutines.
shoal_why_emulation=
AS_IF([test $shoal_have_cxx = no], [shoal_why_emulation='no C++17 compiler'],
  [test "x$enable_sanitize" != xno], [shoal_why_emulation='not with sanitizers'],
  [test $shoal_have_cuda = no], [shoal_why_emulation='no CUDA Toolkit'])
AS_IF([test -z "$shoal_why_emulation"],
  [SHOAL_SUMMARY_ADD([emulation], [yes, the tests run the CUDA device without a GPU])],
  [SHOAL_SUMMARY_ADD([emulation], [no ($shoal_why_emulation)])])
AM_CONDITIONAL([HAVE_EMULATION], [test -z "$shoal_why_emulation"])
])
