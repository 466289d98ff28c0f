//! Where the experts of a mixture are in a base, and which part of an adapter's factors each of its tensors gets.
//!
//! transformers 5 keeps all experts of a block in two parameters, and PEFT trains factors for each (`target_parameters`). Files
//! have either those or a matrix per expert and part, as transformers 4 did.

use super::site::Product;
use super::tensors::Tensors;
use anyhow::{Result, bail};

/// Parameters of a mixture's experts in the order in which transformers 5 makes them, and the matrices whose rows they are.
pub const EXPERTS: &[(&str, &[&str])] = &[("gate_up_proj", &["gate_proj", "up_proj"]), ("down_proj", &["down_proj"])];

/// How a base keeps the experts of one block.
pub struct Mixture<'b> {
    base: &'b Tensors,
    /// What their names begin with: `model.layers.0.mlp.experts`.
    name: &'b str,
    /// How many there are.
    pub n: i64,
    /// In one tensor per parameter.
    stacked: bool,
}

impl<'b> Mixture<'b> {
    /// The experts of this name; `None` where there are none.
    pub fn find(base: &'b Tensors, name: &'b str) -> Option<Self> {
        if let Some(shape) = base.shape(&format!("{name}.down_proj")) {
            return Some(Self { base, name, n: *shape.first()?, stacked: true });
        }
        let n = (0..).take_while(|expert| base.contains(&format!("{name}.{expert}.down_proj.weight"))).count();
        (n > 0).then_some(Self { base, name, n: n as i64, stacked: false })
    }

    /// Rows and columns of one expert's part of a parameter.
    ///
    /// # Errors
    /// The base has a tensor of another shape.
    pub fn shape(&self, parameter: &str) -> Result<[i64; 2]> {
        let parts = self.parts(parameter)?;
        Ok([parts.iter().map(|(_, rows, _)| rows).sum(), parts.first().map_or(0, |(.., columns)| *columns)])
    }

    /// Name, rows and columns of the matrices that one expert's part of a parameter is made of.
    fn parts(&self, parameter: &str) -> Result<Vec<(String, i64, i64)>> {
        let (base, name) = (self.base, self.name);
        if self.stacked {
            let shape = base.shape(&format!("{name}.{parameter}")).unwrap_or_default();
            let &[_, rows, columns] = shape else { bail!("{name}.{parameter} of the base has shape {shape:?}, expected three dimensions") };
            return Ok(vec![(parameter.to_owned(), rows, columns)]);
        }
        let parts = EXPERTS.iter().find(|(name, _)| *name == parameter).map_or(&[][..], |(_, parts)| *parts);
        let matrix = |part: &&str| {
            let name = format!("{name}.0.{part}.weight");
            match base.shape(&name) {
                Some(&[rows, columns]) => Ok(((*part).to_owned(), rows, columns)),
                found => bail!("{name} of the base has shape {found:?}, expected two dimensions"),
            }
        };
        parts.iter().map(matrix).collect()
    }

    /// The tensors that factors of a parameter change, with what of the factors is theirs.
    ///
    /// # Errors
    /// As [`Mixture::shape`].
    pub fn products(&self, parameter: &str, all: &Product) -> Result<Vec<(String, Product)>> {
        let parts = self.parts(parameter)?;
        let mut products = Vec::new();
        for expert in 0..self.n {
            let of_expert = Product { expert: Some((expert, self.n)), ..all.clone() };
            if self.stacked {
                products.push((format!("{}.{parameter}", self.name), Product { into: Some((expert, 0)), ..of_expert }));
                continue;
            }
            let mut start = 0;
            for (part, rows, _) in &parts {
                let name = format!("{}.{expert}.{part}.weight", self.name);
                products.push((name, Product { rows: Some((start, *rows)), ..of_expert.clone() }));
                start += rows;
            }
        }
        Ok(products)
    }
}

/// One expert's matrix in a stack of all.
pub struct OneExpert {
    /// The base's tensor.
    pub stack: String,
    pub expert: i64,
    /// Its first row there, and its shape.
    pub row: i64,
    pub shape: [i64; 2],
}

impl OneExpert {
    /// Takes `<experts>.<number>.<part>` apart; `None` for other modules, and where the base has no stack of them.
    pub fn find(base: &Tensors, module: &str) -> Option<Self> {
        let (rest, part) = module.rsplit_once('.')?;
        let (experts, number) = rest.rsplit_once('.')?;
        let (parameter, parts) = EXPERTS.iter().find(|(_, parts)| parts.contains(&part))?;
        let (stack, expert) = (format!("{experts}.{parameter}"), number.parse().ok()?);
        let &[n, rows, columns] = base.shape(&stack)? else { return None };
        let rows = rows / parts.len() as i64;
        let place = parts.iter().position(|other| *other == part)? as i64;
        (expert < n).then_some(Self { stack, expert, row: place * rows, shape: [rows, columns] })
    }
}
