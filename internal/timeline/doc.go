// Package timeline records what calls have caused, one span per step, and reads it by correlation,
// trace or request id.
//
// Recording never blocks a call: spans wait in a queue that is bounded and fair between accounts,
// and further ones are dropped and counted. What an account stores is bounded as well.
package timeline
