	.file	"<string>"
	.section	.rodata.cst4,"aM",@progbits,4
	.p2align	2, 0x0
.LCPI0_0:
	.long	0x7fffffff
.LCPI0_1:
	.long	0x43400000
	.section	.ltext,"axl",@progbits
	.globl	_ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx
	.p2align	4
	.type	_ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,@function
_ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx:
	pushq	%rbp
	pushq	%r15
	pushq	%r14
	pushq	%r13
	pushq	%r12
	pushq	%rbx
	movq	256(%rsp), %rax
	testq	%rax, %rax
	jle	.LBB0_5
	movq	224(%rsp), %rcx
	movq	248(%rsp), %r12
	movabsq	$.LCPI0_0, %r13
	movq	56(%rsp), %r8
	movq	112(%rsp), %rsi
	movq	168(%rsp), %rdx
	movl	$1, %r9d
	vpbroadcastd	(%r13), %ymm8
	movabsq	$.LCPI0_1, %r13
	vbroadcastss	(%r13), %ymm9
	vmovdqu	(%rcx), %ymm0
	vmovdqu	32(%rcx), %ymm1
	vmovdqu	64(%rcx), %ymm2
	vmovdqu	96(%rcx), %ymm3
	vmovdqu	128(%rcx), %ymm4
	vmovdqu	160(%rcx), %ymm5
	vmovdqu	192(%rcx), %ymm6
	vmovdqu	224(%rcx), %ymm7
	leaq	(,%r12,4), %r10
	cmpq	$2, %r12
	leaq	(%r8,%r12,8), %rbx
	leaq	(%rsi,%r12,8), %r14
	leaq	(%r8,%r12,4), %r15
	cmovgeq	%r12, %r9
	leaq	(%rsi,%r12,4), %r12
	addq	$32, %rdx
	leaq	(%r10,%r10,2), %r10
	leaq	(%r8,%r10), %r11
	addq	%rsi, %r10
	vmovdqu	%ymm8, -40(%rsp)
	.p2align	4
.LBB0_2:
	movq	%rdx, %r13
	xorl	%ebp, %ebp
	.p2align	4
.LBB0_3:
	vmovdqu	-32(%r13), %ymm12
	vmovdqu	(%r13), %ymm10
	vpbroadcastd	(%rsi,%rbp,4), %ymm15
	vbroadcastss	(%r8,%rbp,4), %ymm14
	addq	$64, %r13
	vpand	%ymm8, %ymm12, %ymm13
	vpand	%ymm8, %ymm10, %ymm11
	vpcmpgtd	%ymm15, %ymm13, %ymm8
	vpand	%ymm12, %ymm8, %ymm8
	vfmadd213ps	%ymm9, %ymm14, %ymm8
	vpaddd	%ymm0, %ymm8, %ymm0
	vpcmpgtd	%ymm15, %ymm11, %ymm8
	vpand	%ymm10, %ymm8, %ymm8
	vfmadd213ps	%ymm9, %ymm14, %ymm8
	vpbroadcastd	(%r12,%rbp,4), %ymm14
	vpaddd	%ymm1, %ymm8, %ymm1
	vbroadcastss	(%r15,%rbp,4), %ymm8
	vpcmpgtd	%ymm14, %ymm13, %ymm15
	vpcmpgtd	%ymm14, %ymm11, %ymm14
	vpand	%ymm10, %ymm14, %ymm14
	vpand	%ymm12, %ymm15, %ymm15
	vfmadd213ps	%ymm9, %ymm8, %ymm14
	vfmadd213ps	%ymm9, %ymm8, %ymm15
	vbroadcastss	(%rbx,%rbp,4), %ymm8
	vpaddd	%ymm3, %ymm14, %ymm3
	vpbroadcastd	(%r14,%rbp,4), %ymm14
	vpaddd	%ymm2, %ymm15, %ymm2
	vpcmpgtd	%ymm14, %ymm13, %ymm15
	vpcmpgtd	%ymm14, %ymm11, %ymm14
	vpand	%ymm10, %ymm14, %ymm14
	vpand	%ymm12, %ymm15, %ymm15
	vfmadd213ps	%ymm9, %ymm8, %ymm14
	vfmadd213ps	%ymm9, %ymm8, %ymm15
	vpbroadcastd	(%r10,%rbp,4), %ymm8
	vpaddd	%ymm5, %ymm14, %ymm5
	vbroadcastss	(%r11,%rbp,4), %ymm14
	vpaddd	%ymm4, %ymm15, %ymm4
	incq	%rbp
	vpcmpgtd	%ymm8, %ymm13, %ymm13
	vpcmpgtd	%ymm8, %ymm11, %ymm8
	vpand	%ymm10, %ymm8, %ymm8
	vpand	%ymm12, %ymm13, %ymm12
	vfmadd213ps	%ymm9, %ymm14, %ymm8
	vfmadd213ps	%ymm9, %ymm14, %ymm12
	vpaddd	%ymm7, %ymm8, %ymm7
	vmovdqu	-40(%rsp), %ymm8
	vpaddd	%ymm6, %ymm12, %ymm6
	cmpq	%rbp, %r9
	jne	.LBB0_3
	decq	%rax
	vmovdqu	%ymm0, (%rcx)
	vmovdqu	%ymm1, 32(%rcx)
	vmovdqu	%ymm2, 64(%rcx)
	vmovdqu	%ymm3, 96(%rcx)
	vmovdqu	%ymm4, 128(%rcx)
	vmovdqu	%ymm5, 160(%rcx)
	vmovdqu	%ymm6, 192(%rcx)
	vmovdqu	%ymm7, 224(%rcx)
	jg	.LBB0_2
.LBB0_5:
	movq	$0, (%rdi)
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
	.size	_ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, .Lfunc_end0-_ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx

	.globl	_ZN7cpython8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx
	.p2align	4
	.type	_ZN7cpython8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,@function
_ZN7cpython8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx:
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
	movabsq	$_ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, %rax
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
	movabsq	$_ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, %rax
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
	movabsq	$".const.missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx", %rsi
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
	.size	_ZN7cpython8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, .Lfunc_end1-_ZN7cpython8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx
	.cfi_endproc

	.globl	cfunc._ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx
	.p2align	4
	.type	cfunc._ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,@function
cfunc._ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx:
	subq	$216, %rsp
	vmovaps	400(%rsp), %xmm0
	movq	264(%rsp), %rax
	movq	320(%rsp), %rcx
	movq	376(%rsp), %rdx
	movq	$0, 208(%rsp)
	leaq	208(%rsp), %rdi
	vmovups	%xmm0, 192(%rsp)
	movq	%rax, 56(%rsp)
	movabsq	$_ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, %rax
	movq	%rdx, 168(%rsp)
	movq	%rcx, 112(%rsp)
	movq	%r8, (%rsp)
	callq	*%rax
	movq	208(%rsp), %rax
	addq	$216, %rsp
	retq
.Lfunc_end2:
	.size	cfunc._ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx, .Lfunc_end2-cfunc._ZN8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx

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

	.type	_ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,@object
	.comm	_ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx,8,8
	.type	".const.missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx",@object
	.p2align	4, 0x0
".const.missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx":
	.asciz	"missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx"
	.size	".const.missing Environment: _ZN08NumbaEnv8__main__4make12_3clocals_3e3runB2v1B40c8tJTIeFIjxB2IKSgI4CrvQClQZ6FcpCShpgEU0AE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIiLi1E1C7mutable7alignedExx", 241

	.type	".const.can't unbox array from PyObject into native value.  The object maybe of a different type",@object
	.p2align	4, 0x0
".const.can't unbox array from PyObject into native value.  The object maybe of a different type":
	.asciz	"can't unbox array from PyObject into native value.  The object maybe of a different type"
	.size	".const.can't unbox array from PyObject into native value.  The object maybe of a different type", 89

	.section	".note.GNU-stack","",@progbits
