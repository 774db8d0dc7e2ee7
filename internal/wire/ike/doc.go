// Package ike reads and writes IKE messages: IKEv2 (RFC 7296) with encrypted
// fragments (RFC 7383), IKEv1 (RFC 2408 and 2409), and what they are framed in
// on UDP port 4500 (RFC 3948) and on TCP (RFC 9329).
//
// A message is a header and a chain of payloads: [Parse] and [Message.Append].
// The bodies of payloads are read and written apart, each by a function of its
// type, such as [ParseSA] and [SA]; what ends in V1 is IKEv1's. Whatever can be
// parsed keeps its unknown values, and is parsed to the same again after it was
// built.
//
// The package is pure: it opens no sockets, keeps no state and does no
// cryptography. What is parsed points into the bytes it was parsed from. What
// a peer says, such as a notify, is a value and never a Go error; an error
// means that the bytes are not an IKE message, or not such a payload.
package ike
