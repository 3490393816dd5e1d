// Command bench measures the platform against what it is made of and against its
// peers, in one run on one machine, in rounds that alternate, so that the ratios mean something where
// the absolute numbers do not.
//
// It is a separate module: the peers never become dependencies of
// the product.
package main
