package model_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/headgate/headgate/model"
)

// counter is a small model: one aggregate with one command, and a view of it.
const counter = `
model: counter
aggregates:
  counter:
    commands:
      add:
        payload: {type: object, required: [n], properties: {n: {type: integer, minimum: 1}}}
        require:
          - {that: "!has(state.total) || state.total + cmd.n <= 10", else: the counter has at most 10}
        emit: [{event: added, data: {n: cmd.n}}]
    evolve:
      added: {total: "(has(state.total) ? state.total : 0) + event.n"}
views:
  counters:
    key: meta.aggregate_id
    columns: {total: int}
    on:
      counter.added: {fold: {total: {sum: event.n}}}
`

// A command is decided on an aggregate's state; its events are folded into the next state.
func ExampleParse() {
	m, err := model.Parse("counter.yaml", []byte(counter))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	aggregate, _ := m.Aggregate("counter")
	add, _ := aggregate.Command("add")
	state := model.Object{}
	for _, n := range []int64{7, 5} {
		events, err := add.Decide(ctx, state, model.Object{"n": n}, model.Meta{})
		if broken, ok := errors.AsType[*model.RuleError](err); ok {
			fmt.Println("refused:", broken.Message)
			continue
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, event := range events {
			if state, err = aggregate.Evolve(ctx, state, event.Type, event.Data, model.Meta{}); err != nil {
				fmt.Println(err)
				return
			}
		}
		fmt.Println("total:", state["total"])
	}
	// Output:
	// total: 7
	// refused: the counter has at most 10
}

// A model with mistakes is refused as a whole, with the line of each.
func ExampleError() {
	_, err := model.Parse("broken.yaml", []byte("model: broken\naggregates:\n  thing:\n    comands: {}\n"))
	mistakes, _ := errors.AsType[*model.Error](err)
	for _, issue := range mistakes.Issues {
		fmt.Println(issue.Line, issue.Path)
	}
	// Output:
	// 3 aggregates.thing
	// 4 aggregates.thing
}
