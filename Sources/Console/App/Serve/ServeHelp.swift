import Server

/// The pages of `serve --help` and `serve --version`.
enum ServeHelp {
    private static let columns = 80

    static let text: String = {
        var lines = ["USAGE: quarterdeck serve [flags]", ""]
        lines += wrapped("Runs one node in the foreground. Flags have etcd's names and meanings; --name value and --name=value are the same, and so are one dash and "
            + "two. Each can also come from its variable (ETCD_DATA_DIR for --data-dir), or all of them from --config-file, which leaves no say to the others. "
            + "Behind each stands its default.", indent: 0)
        lines.append("")
        lines += wrapped("Every flag of etcd 3.5 is understood. Those that change nothing here say so below, and in the log when they are given; what would be "
            + "dangerous to ignore is refused.", indent: 0)
        for group in ServeFlags.groups {
            lines += ["", group.title + ":"]
            for flag in group.flags where !flag.isHidden {
                lines.append("  --\(flag.name)" + (flag.standard.isEmpty ? "" : " '\(flag.standard)'"))
                let told = switch flag.standing {
                case .works: flag.help
                case .idle(let reason): "No effect: " + reason
                case .absent(let harmless, let reason): (harmless.first.map { "Anything but \($0) is refused: " } ?? "Refused: ") + reason + "."
                }
                lines += wrapped(told, indent: 4)
            }
        }
        return lines.joined(separator: "\n")
    }()

    /// Who looks for etcd's line finds the release whose API is served; the first line says what this is.
    static let version = """
        quarterdeck Version: \(Version.text)
        etcd Version: \(ServerVersion.etcd)
        The second is the release of etcd that this node behaves like, as it tells its clients.
        """

    /// A word that is longer than a line has one to itself.
    static func wrapped(_ text: String, indent: Int) -> [String] {
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ") {
            if !line.isEmpty, indent + line.count + 1 + word.count > columns {
                lines.append(String(repeating: " ", count: indent) + line)
                line = ""
            }
            line += (line.isEmpty ? "" : " ") + word
        }
        return lines + [String(repeating: " ", count: indent) + line]
    }
}
