package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/headgate/headgate/model"
)

// modelCommand groups what is done to models.
type modelCommand struct {
	Check modelCheckCommand `cmd:"" help:"Check a model and print every mistake with its line."`
	Show  modelShowCommand  `cmd:"" help:"Print the demo model, as a start for your own."`
}

type modelCheckCommand struct {
	File    string `arg:"" type:"existingfile" help:"The model."`
	Against string `type:"existingfile" help:"The model that it replaces: warns of stored events that FILE cannot read."`
}

// Run checks the model.
func (c *modelCheckCommand) Run(ctx context.Context) error {
	document, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	m, err := model.ParseContext(ctx, c.File, document)
	if err != nil {
		return err
	}
	warnings := m.Warnings
	if c.Against != "" {
		document, err := os.ReadFile(c.Against)
		if err != nil {
			return err
		}
		previous, err := model.ParseStored(ctx, c.Against, document)
		if err != nil {
			return err
		}
		warnings = slices.Concat(warnings, m.ChangeWarnings(previous))
	}
	for _, warning := range warnings {
		fmt.Printf("warning: %s\n", warning)
	}
	fmt.Printf("%s is a valid model (%s, revision %s)\n", c.File, m.Name, m.Revision)
	return nil
}

type modelShowCommand struct{}

// Run prints the demo model.
func (c *modelShowCommand) Run(ctx context.Context) error {
	_, document, err := model.Wallet(ctx)
	if err != nil {
		return err
	}
	fmt.Print(string(document))
	return nil
}
