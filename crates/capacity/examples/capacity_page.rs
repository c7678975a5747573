//! Prints `docs/capacity.md` with its made part as the figures have it: `make docs`.

use fleetlog_capacity::{Figures, PAGE_BEGIN, PAGE_END, made_part};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let page = std::fs::read_to_string("docs/capacity.md")?;
    let (head, rest) =
        page.split_once(PAGE_BEGIN).ok_or("docs/capacity.md: no beginning of the made part")?;
    let (_, tail) = rest.split_once(PAGE_END).ok_or("docs/capacity.md: no end of the made part")?;
    print!("{head}{PAGE_BEGIN}\n{}{PAGE_END}{tail}", made_part(&Figures::builtin())?);
    Ok(())
}
