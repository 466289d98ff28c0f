//! Prompts as a forest of tries over token ids.
//!
//! In a causal model the activation at a token depends only on the tokens before it, so prompts that share a prefix share
//! its activations. Every distinct prefix is one node and is computed once. Nodes are in depth-first order: a subtree is
//! a contiguous range, and the ancestors of any node in a chunk are in the chunk or on the path to the chunk's first node.

use std::ops::Range;

/// Tries over token ids, flattened in depth-first order. All vectors have one entry per node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forest {
    pub token: Vec<i64>,
    /// Parent node, or -1 for a root.
    pub parent: Vec<i64>,
    /// Position of the token in its prompt, from 0.
    pub depth: Vec<i64>,
    /// One past the last node of the subtree that starts here.
    pub subtree_end: Vec<i64>,
    /// Node of the last token per prompt, in the order the prompts were given; `None` for an empty prompt.
    pub last: Vec<Option<usize>>,
    /// Number of prompt tokens before sharing.
    pub prompt_tokens: usize,
}

impl Forest {
    /// Builds the forest of `prompts`, in O(tokens log prompts). Equal prompts and prefixes share nodes.
    pub fn new<P: AsRef<[i64]>>(prompts: &[P]) -> Self {
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by(|&a, &b| prompts[a].as_ref().cmp(prompts[b].as_ref()));
        let mut forest = Self { last: vec![None; prompts.len()], ..Self::default() };
        let mut path: Vec<usize> = Vec::new();
        let mut before: &[i64] = &[];
        // Sorted prompts differ from their neighbour at one point; the path up to there is shared, the rest is new.
        for index in order {
            let tokens = prompts[index].as_ref();
            let shared = before.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            path.truncate(shared);
            for (depth, &token) in tokens.iter().enumerate().skip(shared) {
                let node = forest.token.len();
                forest.token.push(token);
                forest.parent.push(path.last().map_or(-1, |&parent| parent as i64));
                forest.depth.push(depth as i64);
                path.push(node);
            }
            forest.last[index] = path.last().copied();
            forest.prompt_tokens += tokens.len();
            before = tokens;
        }
        forest.subtree_end = (1..=forest.token.len() as i64).collect();
        for node in (0..forest.token.len()).rev() {
            if let Ok(parent) = usize::try_from(forest.parent[node]) {
                forest.subtree_end[parent] = forest.subtree_end[parent].max(forest.subtree_end[node]);
            }
        }
        forest
    }

    /// Number of nodes: tokens that have to be computed.
    pub fn len(&self) -> usize {
        self.token.len()
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.token.is_empty()
    }

    /// Nodes from the root to `node`, inclusive.
    pub fn path(&self, node: usize) -> Vec<usize> {
        let mut path = vec![node];
        let mut at = node;
        while let Ok(parent) = usize::try_from(self.parent[at]) {
            path.push(parent);
            at = parent;
        }
        path.reverse();
        path
    }

    /// Nodes of the tokens `span` of a prompt; empty for an empty prompt.
    pub fn span(&self, prompt: usize, span: Range<usize>) -> Vec<usize> {
        self.last[prompt].map_or_else(Vec::new, |last| self.path(last)[span].to_vec())
    }

    /// Length of the longest prompt.
    pub fn max_depth(&self) -> usize {
        self.depth.iter().max().map_or(0, |&depth| depth as usize + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_reads_back_along_its_path() {
        let prompts: Vec<Vec<i64>> = vec![vec![1, 2, 3], vec![1, 2], vec![], vec![1, 2, 3], vec![4], vec![1, 5, 3], vec![4, 4]];
        let forest = Forest::new(&prompts);
        for (index, prompt) in prompts.iter().enumerate() {
            let nodes = forest.span(index, 0..prompt.len());
            assert_eq!(&nodes.iter().map(|&node| forest.token[node]).collect::<Vec<_>>(), prompt);
            assert_eq!(nodes.iter().map(|&node| forest.depth[node]).collect::<Vec<_>>(), (0..prompt.len() as i64).collect::<Vec<_>>());
        }
        assert_eq!((forest.len(), forest.prompt_tokens, forest.max_depth()), (7, 14, 3));
    }

    #[test]
    fn a_subtree_is_a_contiguous_range() {
        let forest = Forest::new(&[vec![1, 2, 3], vec![1, 2, 4], vec![1, 9], vec![2]]);
        for node in 0..forest.len() {
            for other in 0..forest.len() {
                let inside = node <= other && (other as i64) < forest.subtree_end[node];
                assert_eq!(inside, forest.path(other).contains(&node), "node {node}, other {other}");
            }
        }
    }

    #[test]
    fn no_prompt_is_no_node() {
        let forest = Forest::new::<Vec<i64>>(&[]);
        assert!(forest.is_empty());
        assert_eq!(forest.max_depth(), 0);
    }
}
