	.file	"<string>"
	.section	.rodata.cst4,"aM",@progbits,4
	.p2align	2, 0x0
.LCPI0_0:
	.long	0x7fffffff
.LCPI0_1:
	.long	0x43400000
	.section	.ltext,"axl",@progbits
	.globl	_ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx
	.p2align	4
	.type	_ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,@function
_ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx:
	pushq	%rbp
	pushq	%r15
	pushq	%r14
	pushq	%r13
	pushq	%r12
	pushq	%rbx
	movq	256(%rsp), %rax
	movq	%rdi, -8(%rsp)
	testq	%rax, %rax
	jle	.LBB0_9
	movq	224(%rsp), %rdx
	movabsq	$.LCPI0_0, %rdi
	movq	248(%rsp), %rcx
	movq	112(%rsp), %r8
	movq	56(%rsp), %r9
	movq	168(%rsp), %rsi
	movl	$1, %r11d
	movabsq	$9223372036854775806, %rbx
	vpbroadcastd	(%rdi), %ymm0
	movabsq	$.LCPI0_1, %rdi
	vbroadcastss	(%rdi), %ymm1
	vmovdqu	(%rdx), %ymm2
	vmovdqu	32(%rdx), %ymm3
	vmovdqu	64(%rdx), %ymm5
	vmovdqu	96(%rdx), %ymm4
	vmovdqu	128(%rdx), %ymm6
	vmovdqu	160(%rdx), %ymm7
	cmpq	$2, %rcx
	leaq	4(%r8,%rcx,4), %r15
	leaq	4(%r9,%rcx,4), %r12
	leaq	4(%r8,%rcx,8), %r13
	leaq	4(%r9,%rcx,8), %rbp
	leaq	(%rcx,%rcx), %r10
	cmovgeq	%rcx, %r11
	andq	%r11, %rbx
	jmp	.LBB0_2
	.p2align	4
.LBB0_3:
	xorl	%r14d, %r14d
.LBB0_7:
	movq	%r14, %rdi
	shlq	$6, %rdi
	vpbroadcastd	(%r8,%r14,4), %ymm13
	vbroadcastss	(%r9,%r14,4), %ymm12
	vmovdqu	(%rsi,%rdi), %ymm10
	vmovdqu	32(%rsi,%rdi), %ymm8
	leaq	(%r14,%rcx), %rdi
	addq	%r10, %r14
	vpand	%ymm0, %ymm10, %ymm11
	vpand	%ymm0, %ymm8, %ymm9
	vpcmpgtd	%ymm13, %ymm11, %ymm14
	vpcmpgtd	%ymm13, %ymm9, %ymm13
	vpand	%ymm8, %ymm13, %ymm13
	vpand	%ymm10, %ymm14, %ymm14
	vfmadd213ps	%ymm1, %ymm12, %ymm13
	vfmadd213ps	%ymm1, %ymm12, %ymm14
	vbroadcastss	(%r9,%rdi,4), %ymm12
	vpaddd	%ymm3, %ymm13, %ymm3
	vpbroadcastd	(%r8,%rdi,4), %ymm13
	vpaddd	%ymm2, %ymm14, %ymm2
	vpcmpgtd	%ymm13, %ymm11, %ymm14
	vpcmpgtd	%ymm13, %ymm9, %ymm13
	vpand	%ymm10, %ymm14, %ymm14
	vpand	%ymm8, %ymm13, %ymm13
	vfmadd213ps	%ymm1, %ymm12, %ymm14
	vfmadd213ps	%ymm1, %ymm12, %ymm13
	vbroadcastss	(%r9,%r14,4), %ymm12
	vpaddd	%ymm5, %ymm14, %ymm5
	vpbroadcastd	(%r8,%r14,4), %ymm14
	vpaddd	%ymm4, %ymm13, %ymm4
	vpcmpgtd	%ymm14, %ymm11, %ymm11
	vpcmpgtd	%ymm14, %ymm9, %ymm9
	vpand	%ymm10, %ymm11, %ymm10
	vpand	%ymm8, %ymm9, %ymm8
	vfmadd213ps	%ymm1, %ymm12, %ymm10
	vfmadd213ps	%ymm1, %ymm12, %ymm8
	vpaddd	%ymm6, %ymm10, %ymm6
	vpaddd	%ymm7, %ymm8, %ymm7
.LBB0_8:
	decq	%rax
	vmovdqu	%ymm2, (%rdx)
	vmovdqu	%ymm3, 32(%rdx)
	vmovdqu	%ymm5, 64(%rdx)
	vmovdqu	%ymm4, 96(%rdx)
	vmovdqu	%ymm6, 128(%rdx)
	vmovdqu	%ymm7, 160(%rdx)
	jle	.LBB0_9
.LBB0_2:
	cmpq	$2, %rcx
	jl	.LBB0_3
	leaq	96(%rsi), %rdi
	xorl	%r14d, %r14d
	.p2align	4
.LBB0_5:
	vmovdqu	-96(%rdi), %ymm11
	vpbroadcastd	(%r8,%r14,4), %ymm9
	vbroadcastss	(%r9,%r14,4), %ymm8
	vmovdqu	-64(%rdi), %ymm10
	vpand	%ymm0, %ymm11, %ymm13
	vpand	%ymm0, %ymm10, %ymm12
	vpcmpgtd	%ymm9, %ymm13, %ymm14
	vpcmpgtd	%ymm9, %ymm12, %ymm9
	vpand	%ymm11, %ymm14, %ymm14
	vpand	%ymm10, %ymm9, %ymm9
	vfmadd213ps	%ymm1, %ymm8, %ymm14
	vfmadd213ps	%ymm1, %ymm8, %ymm9
	vbroadcastss	-4(%r12,%r14,4), %ymm8
	vpaddd	%ymm2, %ymm14, %ymm2
	vpbroadcastd	-4(%r15,%r14,4), %ymm14
	vpaddd	%ymm3, %ymm9, %ymm3
	vpcmpgtd	%ymm14, %ymm13, %ymm9
	vpcmpgtd	%ymm14, %ymm12, %ymm14
	vpand	%ymm10, %ymm14, %ymm14
	vpand	%ymm11, %ymm9, %ymm9
	vfmadd213ps	%ymm1, %ymm8, %ymm14
	vfmadd213ps	%ymm1, %ymm8, %ymm9
	vmovdqu	(%rdi), %ymm8
	vpaddd	%ymm4, %ymm14, %ymm4
	vpbroadcastd	-4(%r13,%r14,4), %ymm14
	vpaddd	%ymm5, %ymm9, %ymm5
	vmovdqu	-32(%rdi), %ymm9
	subq	$-128, %rdi
	vpcmpgtd	%ymm14, %ymm13, %ymm13
	vpand	%ymm11, %ymm13, %ymm11
	vbroadcastss	-4(%rbp,%r14,4), %ymm13
	vfmadd213ps	%ymm1, %ymm13, %ymm11
	vpaddd	%ymm6, %ymm11, %ymm6
	vpcmpgtd	%ymm14, %ymm12, %ymm11
	vbroadcastss	4(%r9,%r14,4), %ymm12
	vpand	%ymm10, %ymm11, %ymm10
	vpand	%ymm0, %ymm9, %ymm11
	vfmadd213ps	%ymm1, %ymm13, %ymm10
	vpbroadcastd	4(%r8,%r14,4), %ymm13
	vpaddd	%ymm7, %ymm10, %ymm7
	vpand	%ymm0, %ymm8, %ymm10
	vpcmpgtd	%ymm13, %ymm11, %ymm14
	vpcmpgtd	%ymm13, %ymm10, %ymm13
	vpand	%ymm8, %ymm13, %ymm13
	vpand	%ymm9, %ymm14, %ymm14
	vfmadd213ps	%ymm1, %ymm12, %ymm13
	vfmadd213ps	%ymm1, %ymm12, %ymm14
	vbroadcastss	(%r12,%r14,4), %ymm12
	vpaddd	%ymm3, %ymm13, %ymm3
	vpbroadcastd	(%r15,%r14,4), %ymm13
	vpaddd	%ymm2, %ymm14, %ymm2
	vpcmpgtd	%ymm13, %ymm11, %ymm14
	vpcmpgtd	%ymm13, %ymm10, %ymm13
	vpand	%ymm9, %ymm14, %ymm14
	vpand	%ymm8, %ymm13, %ymm13
	vfmadd213ps	%ymm1, %ymm12, %ymm14
	vfmadd213ps	%ymm1, %ymm12, %ymm13
	vpaddd	%ymm5, %ymm14, %ymm5
	vpbroadcastd	(%r13,%r14,4), %ymm14
	vpaddd	%ymm4, %ymm13, %ymm4
	vbroadcastss	(%rbp,%r14,4), %ymm13
	addq	$2, %r14
	vpcmpgtd	%ymm14, %ymm11, %ymm11
	vpcmpgtd	%ymm14, %ymm10, %ymm10
	vpand	%ymm9, %ymm11, %ymm9
	vpand	%ymm8, %ymm10, %ymm8
	vfmadd213ps	%ymm1, %ymm13, %ymm9
	vfmadd213ps	%ymm1, %ymm13, %ymm8
	vpaddd	%ymm6, %ymm9, %ymm6
	vpaddd	%ymm7, %ymm8, %ymm7
	cmpq	%r14, %rbx
	jne	.LBB0_5
	testb	$1, %r11b
	jne	.LBB0_7
	jmp	.LBB0_8
.LBB0_9:
	movq	-8(%rsp), %rax
	movq	$0, (%rax)
	xorl	%eax, %eax
	popq	%rbx
	popq	%r12
	popq	%r13
	popq	%r14
	popq	%r15
	popq	%rbp
	vzeroupper
	retq
.Lfunc_end0:
	.size	_ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, .Lfunc_end0-_ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx

	.globl	_ZN7cpython8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx
	.p2align	4
	.type	_ZN7cpython8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,@function
_ZN7cpython8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx:
	.cfi_startproc
	pushq	%rbp
	.cfi_def_cfa_offset 16
	pushq	%r15
	.cfi_def_cfa_offset 24
	pushq	%r14
	.cfi_def_cfa_offset 32
	pushq	%r13
	.cfi_def_cfa_offset 40
	pushq	%r12
	.cfi_def_cfa_offset 48
	pushq	%rbx
	.cfi_def_cfa_offset 56
	subq	$376, %rsp
	.cfi_def_cfa_offset 432
	.cfi_offset %rbx, -56
	.cfi_offset %r12, -48
	.cfi_offset %r13, -40
	.cfi_offset %r14, -32
	.cfi_offset %r15, -24
	.cfi_offset %rbp, -16
	leaq	72(%rsp), %r10
	movq	%rsi, %rdi
	xorl	%ebx, %ebx
	leaq	80(%rsp), %r11
	leaq	88(%rsp), %r14
	leaq	96(%rsp), %r15
	movabsq	$".const.make.<locals>.run", %rsi
	movabsq	$PyArg_UnpackTuple, %r12
	leaq	112(%rsp), %r8
	leaq	104(%rsp), %r9
	movl	$6, %edx
	movl	$6, %ecx
	xorl	%eax, %eax
	pushq	%r10
	.cfi_adjust_cfa_offset 8
	pushq	%r11
	.cfi_adjust_cfa_offset 8
	pushq	%r14
	.cfi_adjust_cfa_offset 8
	pushq	%r15
	.cfi_adjust_cfa_offset 8
	callq	*%r12
	addq	$32, %rsp
	.cfi_adjust_cfa_offset -32
	testl	%eax, %eax
	je	.LBB1_29
	movabsq	$_ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, %rax
	cmpq	$0, (%rax)
	je	.LBB1_2
	movq	112(%rsp), %rdi
	movabsq	$NRT_adapt_ndarray_from_python, %rbx
	leaq	320(%rsp), %rsi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 320(%rsp)
	vmovups	%ymm0, 344(%rsp)
	vzeroupper
	callq	*%rbx
	testl	%eax, %eax
	jne	.LBB1_6
	cmpq	$4, 344(%rsp)
	jne	.LBB1_6
	movq	104(%rsp), %rdi
	movq	320(%rsp), %r14
	movq	352(%rsp), %r13
	leaq	256(%rsp), %rsi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 256(%rsp)
	vmovups	%ymm0, 280(%rsp)
	vzeroupper
	callq	*%rbx
	testl	%eax, %eax
	jne	.LBB1_9
	cmpq	$4, 280(%rsp)
	jne	.LBB1_9
	movq	96(%rsp), %rdi
	movq	256(%rsp), %r15
	movq	288(%rsp), %rbp
	leaq	192(%rsp), %rsi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 192(%rsp)
	vmovups	%ymm0, 216(%rsp)
	vzeroupper
	callq	*%rbx
	testl	%eax, %eax
	jne	.LBB1_12
	cmpq	$4, 216(%rsp)
	jne	.LBB1_12
	movq	224(%rsp), %rax
	movq	88(%rsp), %rdi
	movq	192(%rsp), %r12
	leaq	128(%rsp), %rsi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 128(%rsp)
	vmovups	%ymm0, 152(%rsp)
	movq	%rax, 64(%rsp)
	vzeroupper
	callq	*%rbx
	testl	%eax, %eax
	jne	.LBB1_17
	cmpq	$4, 152(%rsp)
	jne	.LBB1_17
	movq	128(%rsp), %rax
	movq	160(%rsp), %rcx
	movq	80(%rsp), %rdi
	movabsq	$PyNumber_Long, %rbx
	movq	%rbp, 48(%rsp)
	movq	%r13, 56(%rsp)
	movq	%r12, 16(%rsp)
	movq	%r15, 24(%rsp)
	movq	%rax, 8(%rsp)
	movq	%rcx, 40(%rsp)
	callq	*%rbx
	movabsq	$PyLong_AsLongLong, %r15
	movabsq	$Py_DecRef, %r12
	movq	%r14, 32(%rsp)
	testq	%rax, %rax
	je	.LBB1_19
	movq	%rax, %rdi
	movq	%rax, %rbp
	callq	*%r15
	movq	%rbp, %rdi
	movq	%rax, %r13
	callq	*%r12
	movabsq	$PyErr_Occurred, %r14
	callq	*%r14
	testq	%rax, %rax
	jne	.LBB1_20
.LBB1_24:
	movq	72(%rsp), %rdi
	callq	*%rbx
	testq	%rax, %rax
	je	.LBB1_25
	movq	%rax, %rdi
	movq	%rax, %rbx
	callq	*%r15
	movq	%rbx, %rdi
	movq	%rax, %rbp
	callq	*%r12
	callq	*%r14
	testq	%rax, %rax
	jne	.LBB1_20
.LBB1_28:
	movabsq	$PyEval_SaveThread, %rax
	callq	*%rax
	movq	%rax, %rbx
	subq	$208, %rsp
	.cfi_adjust_cfa_offset 208
	movq	272(%rsp), %rdi
	movq	248(%rsp), %rax
	movq	256(%rsp), %r10
	movq	%rbp, 200(%rsp)
	movq	%r13, 192(%rsp)
	movq	%rdi, 112(%rsp)
	movq	264(%rsp), %rdi
	movq	%rax, 168(%rsp)
	movabsq	$_ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, %rax
	movq	%r10, 56(%rsp)
	movq	%rdi, (%rsp)
	leaq	328(%rsp), %rdi
	callq	*%rax
	addq	$208, %rsp
	.cfi_adjust_cfa_offset -208
	movabsq	$PyEval_RestoreThread, %rax
	movq	%rbx, %rdi
	callq	*%rax
	movq	32(%rsp), %rdi
	movabsq	$NRT_decref, %rbx
	callq	*%rbx
	movq	24(%rsp), %rdi
	callq	*%rbx
	movq	16(%rsp), %rdi
	callq	*%rbx
	movq	8(%rsp), %rdi
	callq	*%rbx
	movabsq	$_Py_NoneStruct, %rbx
	movabsq	$Py_IncRef, %rax
	movq	%rbx, %rdi
	callq	*%rax
.LBB1_29:
	movq	%rbx, %rax
	addq	$376, %rsp
	.cfi_def_cfa_offset 56
	popq	%rbx
	.cfi_def_cfa_offset 48
	popq	%r12
	.cfi_def_cfa_offset 40
	popq	%r13
	.cfi_def_cfa_offset 32
	popq	%r14
	.cfi_def_cfa_offset 24
	popq	%r15
	.cfi_def_cfa_offset 16
	popq	%rbp
	.cfi_def_cfa_offset 8
	retq
.LBB1_2:
	.cfi_def_cfa_offset 432
	movabsq	$PyExc_RuntimeError, %rdi
	movabsq	$".const.missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx", %rsi
	jmp	.LBB1_3
.LBB1_6:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
.LBB1_3:
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	xorl	%ebx, %ebx
	jmp	.LBB1_29
.LBB1_9:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	jmp	.LBB1_14
.LBB1_12:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	jmp	.LBB1_13
.LBB1_17:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	jmp	.LBB1_21
.LBB1_19:
	xorl	%r13d, %r13d
	movabsq	$PyErr_Occurred, %r14
	callq	*%r14
	testq	%rax, %rax
	je	.LBB1_24
	jmp	.LBB1_20
.LBB1_25:
	xorl	%ebp, %ebp
	callq	*%r14
	testq	%rax, %rax
	je	.LBB1_28
.LBB1_20:
	movq	8(%rsp), %rdi
	movabsq	$NRT_decref, %rax
	callq	*%rax
	movq	32(%rsp), %r14
	movq	24(%rsp), %r15
	movq	16(%rsp), %r12
.LBB1_21:
	movabsq	$NRT_decref, %rax
	movq	%r12, %rdi
	callq	*%rax
.LBB1_13:
	movabsq	$NRT_decref, %rax
	movq	%r15, %rdi
	callq	*%rax
.LBB1_14:
	movabsq	$NRT_decref, %rax
	movq	%r14, %rdi
	callq	*%rax
	xorl	%ebx, %ebx
	jmp	.LBB1_29
.Lfunc_end1:
	.size	_ZN7cpython8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, .Lfunc_end1-_ZN7cpython8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx
	.cfi_endproc

	.globl	cfunc._ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx
	.p2align	4
	.type	cfunc._ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,@function
cfunc._ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx:
	subq	$216, %rsp
	vmovaps	400(%rsp), %xmm0
	movq	264(%rsp), %rax
	movq	320(%rsp), %rcx
	movq	376(%rsp), %rdx
	movq	$0, 208(%rsp)
	leaq	208(%rsp), %rdi
	vmovups	%xmm0, 192(%rsp)
	movq	%rax, 56(%rsp)
	movabsq	$_ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, %rax
	movq	%rdx, 168(%rsp)
	movq	%rcx, 112(%rsp)
	movq	%r8, (%rsp)
	callq	*%rax
	movq	208(%rsp), %rax
	addq	$216, %rsp
	retq
.Lfunc_end2:
	.size	cfunc._ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, .Lfunc_end2-cfunc._ZN8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx

	.weak	NRT_decref
	.p2align	4
	.type	NRT_decref,@function
NRT_decref:
	.cfi_startproc
	testq	%rdi, %rdi
	je	.LBB3_2
	#MEMBARRIER
	lock		decq	(%rdi)
	je	.LBB3_3
.LBB3_2:
	retq
.LBB3_3:
	movabsq	$NRT_MemInfo_call_dtor, %rax
	#MEMBARRIER
	jmpq	*%rax
.Lfunc_end3:
	.size	NRT_decref, .Lfunc_end3-NRT_decref
	.cfi_endproc

	.type	".const.make.<locals>.run",@object
	.section	.lrodata,"al",@progbits
	.p2align	4, 0x0
".const.make.<locals>.run":
	.asciz	"make.<locals>.run"
	.size	".const.make.<locals>.run", 18

	.type	_ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,@object
	.comm	_ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,8,8
	.type	".const.missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx",@object
	.p2align	4, 0x0
".const.missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx":
	.asciz	"missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx"
	.size	".const.missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v2B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx", 241

	.type	".const.can't unbox array from PyObject into native value.  The object maybe of a different type",@object
	.p2align	4, 0x0
".const.can't unbox array from PyObject into native value.  The object maybe of a different type":
	.asciz	"can't unbox array from PyObject into native value.  The object maybe of a different type"
	.size	".const.can't unbox array from PyObject into native value.  The object maybe of a different type", 89

	.section	".note.GNU-stack","",@progbits
