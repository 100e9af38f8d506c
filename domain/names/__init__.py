"""The names that enter from outside, validated: ids, branches and HTTP hosts."""
