package capture

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
)

// errGzip means that a compressed capture cannot be decompressed any further.
var errGzip = errors.New("its compressed data is damaged")

// gunzip decompresses, and says in plain words where that fails.
type gunzip struct{ z *gzip.Reader }

func newGunzip(r io.Reader) (*gunzip, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, damaged(err)
	}
	return &gunzip{z}, nil
}

func (g *gunzip) Read(b []byte) (int, error) {
	n, err := g.z.Read(b)
	return n, damaged(err)
}

// damaged replaces the errors of damaged data; those of the file stay.
func damaged(err error) error {
	var corrupt flate.CorruptInputError
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt) {
		return errGzip
	}
	return err
}
