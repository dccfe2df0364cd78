//! The shapes of the trees: who is whose child, and who has none.

use std::iter;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Flat,
    Chain,
    Binary,
    TenAry,
    Directories,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Chain => "chain",
            Self::Binary => "binary",
            Self::TenAry => "ten_ary",
            Self::Directories => "directories",
        }
    }

    /// With so many tokens below the root; the directories are as many as they are.
    pub fn shape(self, len: usize) -> Shape {
        match self {
            Self::Flat => Shape::flat(len),
            Self::Chain => Shape::chain(len),
            Self::Binary => Shape::n_ary(2, len),
            Self::TenAry => Shape::n_ary(10, len),
            Self::Directories => Shape::directories(),
        }
    }
}

/// Tokens have numbers: 0 is the root, and a parent's number is smaller than its children's.
pub struct Shape {
    /// Of the tokens from 1 on.
    pub parents: Vec<usize>,
    /// Those without children, in ascending order.
    pub leaves: Vec<usize>,
    /// How many children the token with the most has.
    pub width: usize,
    /// How many levels are below the root.
    pub depth: usize,
    /// The levels of all leaves, added up: the tokens that a wait on each leaf has to do with.
    pub reach: usize,
}

impl Shape {
    fn new(parents: Vec<usize>) -> Self {
        let mut children = vec![0; parents.len() + 1];
        let mut level = vec![0; parents.len() + 1];
        for (token, &parent) in (1..).zip(&parents) {
            children[parent] += 1;
            level[token] = level[parent] + 1;
        }
        let leaves: Vec<_> = (0..children.len())
            .filter(|&token| children[token] == 0)
            .collect();
        Self {
            width: children.into_iter().max().unwrap_or(0),
            depth: level.iter().copied().max().unwrap_or(0),
            reach: leaves.iter().map(|&leaf| level[leaf]).sum(),
            parents,
            leaves,
        }
    }

    /// How many tokens are below the root.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// All are children of the root.
    fn flat(len: usize) -> Self {
        Self::new(vec![0; len])
    }

    /// Each has one child; the one leaf is the last.
    fn chain(len: usize) -> Self {
        Self::new((0..len).collect())
    }

    /// Level by level, the last of which may have room left.
    fn n_ary(n: usize, len: usize) -> Self {
        Self::new((0..len).map(|i| i / n).collect())
    }

    /// A real directory tree: its directories and files, each a child of the directory that it is in.
    pub fn directories() -> Self {
        let text = include_str!("directories.txt");
        let mut parents = Vec::new();
        // The directories above the line, and how many of their own directories are still to come.
        let mut above: Vec<(usize, usize)> = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (files, directories) = line.split_once(' ').expect("two numbers");
            let [files, directories]: [usize; 2] =
                [files, directories].map(|number| number.parse().expect("a number"));
            while let Some((_, 0)) = above.last() {
                above.pop();
            }
            let token = match above.last_mut() {
                Some((parent, to_come)) => {
                    *to_come -= 1;
                    parents.push(*parent);
                    parents.len()
                }
                None => {
                    assert!(parents.is_empty(), "one directory is above all");
                    0
                }
            };
            parents.extend(iter::repeat_n(token, files));
            above.push((token, directories));
        }
        assert!(
            above.iter().all(|(_, to_come)| *to_come == 0),
            "a directory is missing"
        );

        let stated = |what: &str| -> usize {
            let number = text.lines().find_map(|line| line.strip_prefix(what));
            number
                .expect("in the head")
                .trim()
                .parse()
                .expect("a number")
        };
        let tokens = stated("# directories:") + stated("# files:");
        assert_eq!(parents.len() + 1, tokens, "as many as the head states");
        Self::new(parents)
    }
}

/// Panics unless the shapes are what their names say.
pub fn check() {
    let figures = |shape: Shape| {
        let leaves = shape.leaves.len();
        (shape.len(), leaves, shape.width, shape.depth, shape.reach)
    };
    assert_eq!(figures(Shape::flat(1)), (1, 1, 1, 1, 1));
    assert_eq!(figures(Shape::flat(1000)), (1000, 1000, 1000, 1, 1000));
    assert_eq!(figures(Shape::chain(1000)), (1000, 1, 1, 1000, 1000));
    // Nine levels below the root, and three.
    assert_eq!(figures(Shape::n_ary(2, 1022)), (1022, 512, 2, 9, 9 * 512));
    assert_eq!(
        figures(Shape::n_ary(10, 1110)),
        (1110, 1000, 10, 3, 3 * 1000)
    );
    // Cut off in the middle of a level.
    assert_eq!(figures(Shape::n_ary(2, 4)), (4, 3, 2, 2, 1 + 2 * 2));

    let directories = Shape::directories();
    assert_eq!((directories.width, directories.depth), (200, 9));
    // Files, and directories are not empty in this one.
    assert_eq!(directories.leaves.len(), 3025);
}
