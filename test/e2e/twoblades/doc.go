// Package twoblades holds the tests of direct return where it shows: a request that enters by the director of one blade is answered by a
// real server of another, so that no blade sees both halves of a connection. Others have two sites, each with a director that announces
// in a way of its own (`make sites`), kill a director under its users' sessions (`make failover`), and have a pair on a LAN without a routing protocol (`make vrrp`). It has no code of its own.
package twoblades
