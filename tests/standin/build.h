/* SPDX-License-Identifier: BSD-3-Clause */
/* Included behind config.h where the CUDA device is compiled for the stand-ins: cuDNN has none, so attention is the project's own. */
#undef SHOAL_HAVE_CUDNN
