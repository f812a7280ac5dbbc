// Package e2e holds the tests of the product as a user has it: the installed commands on a blade in the lab, real guests, a real
// user behind a real router. It has no code of its own.
package e2e
