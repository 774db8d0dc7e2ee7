// Package ike reads and writes IKE messages: IKEv2 (RFC 7296), and of IKEv1
// (RFC 2408) the header and the chain of payloads, which have the same form.
//
// The package is pure: it opens no sockets, keeps no state and does no
// cryptography. What is parsed points into the bytes it was parsed from. What
// a peer says, such as a notify, is a value and never a Go error; an error
// means that the bytes are not an IKE message.
package ike
