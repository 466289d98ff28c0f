//! From concept files to frozen token ids: which texts are asked, how they are rendered, where they are read.

pub mod records;
mod json;
mod rewrite;
mod jinja;
pub mod classes;
pub mod vocabulary;
pub mod conversation;
pub mod template;
pub mod tokenize;
pub mod decode;
pub mod endings;
pub mod import;
pub mod specification;
pub mod label_family;
pub mod concept;
pub mod neutral;
mod slots;
mod balance;
pub mod design;
pub mod item;
pub mod persona;
pub mod choices;
pub mod injected;
pub mod transcript;
pub mod talks;
pub mod statements;
pub mod forest;
