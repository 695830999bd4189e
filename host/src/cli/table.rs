//! Lists as a person reads them: columns, aligned.

/// Lays out rows under their headings; the last column is not padded.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows = std::iter::once(headings.map(str::to_owned)).chain(rows).collect::<Vec<_>>();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = (0..N).map(width).collect::<Vec<_>>();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned_by_characters() {
        let text =
            super::table(["JOB", "STATE"], [["zażółć".into(), "ok".into()], ["a".into(), "failed".into()]]);
        assert_eq!(text, "JOB     STATE\nzażółć  ok\na       failed\n");
    }
}
