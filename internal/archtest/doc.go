// Package archtest holds the tests of the repository's structure: which
// package may import which (docs/architecture.md).
package archtest
