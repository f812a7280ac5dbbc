// Package twoblades holds the tests of direct return where it shows: a request that enters by the director of one blade is answered by a
// real server of another, so that no blade sees both halves of a connection. Another one kills a director under its users' sessions (`make failover`: two
// KVM guests at once are more than an emulated machine always survives). It has no code of its own.
package twoblades
