package files

import (
	"context"

	"atoll.example/atoll/internal/seal"
)

// tree builds the manifests of a file bottom-up, from its chunks in order. At
// most FanOut children of each level are held.
type tree struct {
	levels [seal.MaxLevel + 1][]seal.Child
	// put stores a manifest and returns it as a child, without Length.
	put func(ctx context.Context, m *seal.Manifest) (seal.Child, error)
}

// add appends a child at level. A full node is folded only when one more
// child comes: 512 chunks fit into a root of level 0.
func (t *tree) add(ctx context.Context, level uint8, c seal.Child) error {
	if len(t.levels[level]) == seal.FanOut {
		if level == seal.MaxLevel {
			return ErrTooLarge
		}
		if err := t.fold(ctx, level); err != nil {
			return err
		}
	}
	t.levels[level] = append(t.levels[level], c)
	return nil
}

// fold makes one child of the next level of all at this one.
func (t *tree) fold(ctx context.Context, level uint8) error {
	children := t.levels[level]
	folded := seal.Child{Hole: true}
	for i := range children {
		folded.Hole = folded.Hole && children[i].Hole
	}
	if !folded.Hole {
		var err error
		if folded, err = t.put(ctx, &seal.Manifest{Level: level, Children: children}); err != nil {
			return err
		}
	}
	for i := range children {
		folded.Length += children[i].Length
	}
	t.levels[level] = nil
	return t.add(ctx, level+1, folded)
}

// top folds all but the highest level in use and returns that.
func (t *tree) top(ctx context.Context) (level uint8, children []seal.Child, err error) {
	for level = 0; level < seal.MaxLevel; level++ {
		higher := false
		for _, l := range t.levels[level+1:] {
			higher = higher || len(l) > 0
		}
		if !higher {
			break
		}
		if len(t.levels[level]) > 0 {
			if err := t.fold(ctx, level); err != nil {
				return 0, nil, err
			}
		}
	}
	return level, t.levels[level], nil
}
