//! `report.html`: the picture, the summary, the table and every run's configuration, in one file without a network.

use sae_config::Variant;

use crate::tables::{COLUMNS, describe, sentences, sorted};
use crate::{Frontier, SweepRuns};

const STYLE: &str = include_str!("../assets/report.css");

/// The page.
pub(crate) fn html(runs: &SweepRuns, frontier: &Frontier, svg: &str) -> String {
    let title = format!("Sweep {}", escape(&runs.name));
    let notes: String = sentences(runs, frontier)
        .iter()
        .map(|line| format!("<li>{}</li>\n", escape(line)))
        .collect();
    let types: String = frontier.variants().into_iter().map(definition).collect();
    let header: String = COLUMNS.iter().map(|(name, _)| format!("<th>{name}</th>")).collect();
    let rows: String = sorted(&frontier.points)
        .into_iter()
        .map(|point| {
            let cells: String = COLUMNS
                .iter()
                .map(|(_, write)| format!("<td>{}</td>", escape(&write(point))))
                .collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    let details: String = runs.finished.iter().map(run).collect();
    let versions = runs.finished.first().map_or_else(String::new, |run| {
        let versions = &run.summary.versions;
        format!(
            "sae {} ({}), libtorch {}, on {}",
            escape(&versions.sae),
            escape(&versions.commit),
            escape(&versions.libtorch),
            escape(&versions.device)
        )
    });
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n\
         <p>{} finished runs. Cross-entropy (CE) increase is the next-token loss with the SAE spliced in, less the \
         original model's, in nats per token.</p>\n\
         <figure>{}</figure>\n<dl>{types}</dl>\n<h2>Against local</h2>\n<ul>\n{notes}</ul>\n\
         <h2>Runs</h2>\n<div class=\"wide\"><table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n<h2>Configurations</h2>\n{details}<footer>{versions}</footer>\n</main>\n</body>\n</html>\n",
        runs.finished.len(),
        scalable(svg),
    )
}

fn definition(variant: Variant) -> String {
    format!("<dt>{variant}</dt><dd>{}</dd>", escape(describe(variant)))
}

fn run(run: &crate::runs::FinishedRun) -> String {
    let config = run.config.to_toml().unwrap_or_default();
    format!(
        "<details><summary>{}</summary><p>{}</p><pre>{}</pre></details>\n",
        escape(&run.summary.id),
        escape(&run.folder.display().to_string()),
        escape(&config)
    )
}

/// The picture scales with the page: its size in pixels becomes a view box.
fn scalable(svg: &str) -> String {
    let start = svg.find("<svg").unwrap_or(0);
    let end = svg.find("viewBox").unwrap_or(start);
    format!("<svg role=\"img\" aria-label=\"Pareto frontiers\" {}", &svg[end..])
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_from_data_is_escaped() {
        assert_eq!(super::escape("<a href='x'>&"), "&lt;a href=&#39;x&#39;&gt;&amp;");
    }
}
