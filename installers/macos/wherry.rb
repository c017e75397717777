# Written by `make installers`. For a tap: brew install OWNER/TAP/wherry
class Wherry < Formula
  desc "Docker on this computer, in a small virtual machine"
  homepage "@HOMEPAGE@"
  version "@VERSION@"
  license "Apache-2.0"

  depends_on :macos
  depends_on "python@@PYTHON@"
  depends_on "qemu"

  on_arm do
    url "@ARM_URL@"
    sha256 "@ARM_SHA256@"
  end
  on_intel do
    url "@INTEL_URL@"
    sha256 "@INTEL_SHA256@"
  end

  def install
    python = Formula["python@@PYTHON@"].opt_bin/"python@PYTHON@"
    system python, "-m", "venv", "--without-pip", libexec
    (libexec/"lib/python@PYTHON@/site-packages").install Dir["site-packages/*"]
    (libexec/"bin/wherry").write <<~PYTHON
      #!#{libexec}/bin/python3 -I
      import sys

      from launcher.__main__ import main

      sys.exit(main())
    PYTHON
    chmod 0755, libexec/"bin/wherry"
    bin.install_symlink libexec/"bin/wherry"
    generate_completions_from_executable(bin/"wherry", "completion", shells: [:bash, :zsh, :fish])
  end

  def caveats
    <<~TEXT
      Begin with:  wherry up
      Before you remove it:  wherry uninstall  takes back docker contexts, and asks what becomes of your machines.
    TEXT
  end

  test do
    assert_equal "wherry #{version}\n", shell_output("#{bin}/wherry --version")
    ENV["WHERRY_HOME"] = testpath/"home"
    assert_match '"ok": true', shell_output("#{bin}/wherry list --json")
  end
end
