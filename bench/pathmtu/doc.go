// Command pathmtu compares our path MTU search with tracepath and scamper on
// paths whose MTU is known.
//
//	sudo go run ./bench/pathmtu
//
// Every tool gets network namespaces of its own, client, router and server,
// joined by veth, and sends only within them. They have no names: the kernel
// removes all of it when the command ends, however it ends. Neighbours are
// known and IPv6 is off, so that what the client's interface counts is what the
// tool sent. Before each run, the client forgets the path MTUs that it learnt.
//
// The exit status is 2 when nothing could be measured. That a tool is missing
// or wrong is a result.
package main
