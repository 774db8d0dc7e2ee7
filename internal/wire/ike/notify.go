package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Notify is the body of an IKEv2 Notify payload (RFC 7296 section 3.10).
type Notify struct {
	Protocol ProtocolID
	Type     NotifyType
	SPI      []byte // of the SA that it is about; at most 255 bytes, mostly none
	Data     []byte
}

// ParseNotify reads the body of an IKEv2 Notify payload.
func ParseNotify(b []byte) (Notify, error) {
	return parseNotify(b)
}

func parseNotify(b []byte) (Notify, error) {
	const fixed = 4
	if len(b) < fixed {
		return Notify{}, errors.New("notify shorter than 4 bytes")
	}
	spi := int(b[1])
	if len(b) < fixed+spi {
		return Notify{}, fmt.Errorf("notify with an SPI of %d bytes and %d bytes left", spi, len(b)-fixed)
	}
	return Notify{
		Protocol: ProtocolID(b[0]),
		Type:     NotifyType(binary.BigEndian.Uint16(b[2:])),
		SPI:      b[fixed : fixed+spi],
		Data:     b[fixed+spi:],
	}, nil
}

// Payload returns n as a payload. It panics when the SPI has more than 255
// bytes.
func (n Notify) Payload() Payload {
	b := append(make([]byte, 0, 4+len(n.SPI)+len(n.Data)), byte(n.Protocol), length8("SPI", len(n.SPI)))
	b = binary.BigEndian.AppendUint16(b, uint16(n.Type))
	b = append(b, n.SPI...)
	return Payload{Type: PayloadNotify, Body: append(b, n.Data...)}
}

// NotifyV1 is the body of an IKEv1 Notification payload (RFC 2408 section
// 3.14).
type NotifyV1 struct {
	DOI      uint32 // 1 is IPsec's
	Protocol ProtocolID
	Type     NotifyTypeV1
	SPI      []byte
	Data     []byte
}

// ParseNotifyV1 reads the body of an IKEv1 Notification payload, which is
// IKEv2's behind a domain of interpretation.
func ParseNotifyV1(b []byte) (NotifyV1, error) {
	const doiLen = 4
	if len(b) < doiLen {
		return NotifyV1{}, errors.New("notification shorter than 4 bytes")
	}
	n, err := parseNotify(b[doiLen:])
	if err != nil {
		return NotifyV1{}, err
	}
	return NotifyV1{
		DOI:      binary.BigEndian.Uint32(b),
		Protocol: n.Protocol,
		Type:     NotifyTypeV1(n.Type),
		SPI:      n.SPI,
		Data:     n.Data,
	}, nil
}

// Payload returns n as a payload. It panics when the SPI has more than 255
// bytes.
func (n NotifyV1) Payload() Payload {
	rest := Notify{Protocol: n.Protocol, Type: NotifyType(n.Type), SPI: n.SPI, Data: n.Data}.Payload()
	return Payload{Type: PayloadNotifyV1, Body: append(binary.BigEndian.AppendUint32(nil, n.DOI), rest.Body...)}
}

// FirstNotify returns the name of the message's first readable notification,
// by the registry of the message's version. It returns "" when there is none
// in clear.
func (m Message) FirstNotify() string {
	for _, p := range m.Payloads {
		switch p.Type {
		case PayloadNotify:
			if n, err := ParseNotify(p.Body); err == nil {
				return n.Type.String()
			}
		case PayloadNotifyV1:
			if n, err := ParseNotifyV1(p.Body); err == nil {
				return n.Type.String()
			}
		}
	}
	return ""
}
