// Command capture measures what it costs to watch the ESP of a gateway: our
// counting in the kernel and our packet ring, beside a loop around gopacket's
// pcapgo, tcpdump, and nothing at all, on the same traffic.
//
//	sudo go run ./bench/capture -check
//
// It makes three network namespaces without names, joined by veth, and sends
// only within them: the kernel removes all of it when the command ends, however
// it ends. An XDP program that the kernel runs over and over
// (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18) makes ESP packets on one core faster
// than a gateway forwards them. It leaves out one sequence number in a
// thousand, so that every method's loss can be held against what is true. What
// captures runs in a process of its own, on another core.
//
// The exit status is 1 when a method of ours counted wrong, or with -check
// when a target was missed, and 2 when nothing could be measured.
package main
