// Package bpfcount counts ESP (RFC 4303), AH (RFC 4302) and ESP in UDP
// (RFC 3948) per SPI inside the Linux kernel, by an eBPF program on the path
// of every packet, and hands the few packets that are worth reading whole to
// user space: IKE, NAT keepalives, ICMP errors about the peers' traffic, and
// plaintext that should have been in a tunnel.
//
// Nothing is copied per ESP packet, so that it costs about a tenth of a packet
// socket. The programs let every packet go on and change nothing of it. They
// are written in Go with cilium/ebpf's assembler: there is no object file and
// no compiler to have.
//
// It needs CAP_BPF and CAP_NET_ADMIN, and Linux 5.8 for the ring buffer; on
// kernels before 6.6, which have no tcx, also the clsact qdisc and cls_bpf.
package bpfcount
